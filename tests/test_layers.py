"""Imports point downwards only: the table of rooms in docs/architecture.md, checked on the text of every file."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "ddpm"
BOTTOM = {"check", "types", "rng", "atomic", "untrusted"}
ROOMS = {"diffusion", "models", "data", "metrics"}

MAY_IMPORT = {  # room -> the rooms of this package that it may know besides itself
    "check": set(),
    "atomic": set(),
    "untrusted": set(),
    "types": BOTTOM,
    "rng": BOTTOM,
    **dict.fromkeys(ROOMS, BOTTOM),
    "trust": BOTTOM,
    "stored_config": BOTTOM | {"trust"},
    "checkpoint": BOTTOM | {"stored_config"},
    "codec": BOTTOM | {"models"},
    "interop": BOTTOM | {"models"},
    "pictures": BOTTOM,
    "progress": BOTTOM,
    "launch": BOTTOM,
    "interruption": BOTTOM | {"launch"},
    "evaluation": BOTTOM | {"data", "metrics", "pictures", "progress"},
    "tasks": BOTTOM | {"diffusion", "data", "metrics", "codec", "progress"},
    "training": BOTTOM
    | ROOMS
    | {"checkpoint", "stored_config", "codec", "evaluation", "pictures", "progress", "interruption"},
}  # any other file is of the top: the composition root and the programs, which may import all and be imported by none
DOORS_TO_LIGHTNING = {
    *("data/datamodule.py", "data/generation.py", "checkpoint/folder.py", "checkpoint/writing.py"),
    "evaluation/reference.py",
}
ENTRY_SCRIPTS = [ROOT / name for name in ("train.py", "evaluate.py", "sample.py")]
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every dotted name that a file imports, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(path: Path) -> set[str]:
    """The rooms of this package that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("ddpm.")}


def outside(path: Path) -> set[str]:
    """The other people's packages that a file imports."""
    return {name.split(".")[0] for name in imports(path)} - {"ddpm"} - sys.stdlib_module_names


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


BELOW_THE_TOP = [path for path in FILES if room(path) in MAY_IMPORT]


def test_every_room_of_the_table_is_there_to_be_checked():
    rooms = {room(path) for path in FILES}
    assert rooms >= BOTTOM | {"diffusion"}
    assert rooms.isdisjoint({"utils", "common", "helpers"})  # what has no better name has no home yet


@pytest.mark.parametrize("path", BELOW_THE_TOP, ids=name_of)
def test_a_room_imports_only_the_rooms_below_it(path):
    assert inside(path) <= MAY_IMPORT[room(path)] | {room(path), "__version__"}


@pytest.mark.parametrize("path", BELOW_THE_TOP, ids=name_of)
def test_only_the_top_knows_hydra_and_below_it_only_training_and_the_data_modules_know_lightning(path):
    assert not outside(path) & {"hydra", "omegaconf"}
    if room(path) != "training" and name_of(path) not in DOORS_TO_LIGHTNING:
        assert not outside(path) & {"lightning", "pytorch_lightning"}


@pytest.mark.parametrize("path", [path for path in FILES if room(path) in BOTTOM | {"diffusion"}], ids=name_of)
def test_the_mathematics_needs_nothing_but_torch(path):
    assert outside(path) <= {"check": set(), "untrusted": {"yaml"}}.get(room(path), {"torch"})


def test_the_package_itself_imports_nothing():
    assert not list(imports(PACKAGE / "__init__.py"))


@pytest.mark.parametrize("path", [path for path in ENTRY_SCRIPTS if path.exists()], ids=lambda path: path.name)
def test_an_entry_script_imports_only_the_top(path):
    assert outside(path) <= {"hydra", "omegaconf"}
    assert inside(path).isdisjoint(MAY_IMPORT)
