"""Imports point downwards only: the table of rooms in docs/architecture.md, checked on the text of every file."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "ddpm"
ROOMS = (
    *("base", "diffusion", "networks", "data", "metrics", "checkpoint", "model", "interop", "runs", "training"),
    *("generation", "schedule_check", "config", "tasks", "evaluation", "report", "commands"),
)
"""From the bottom to the top: a room knows those that stand before it."""
APART = ("diffusion", "networks", "data", "metrics")
"""These do not know each other."""

MAY_IMPORT = {room: set(ROOMS[:number]) - (set(APART) if room in APART else set()) for number, room in enumerate(ROOMS)}
KNOW_HYDRA = {"runs", "config", "evaluation", "tasks", "report", "commands", "generation", "schedule_check"}
KNOW_LIGHTNING = KNOW_HYDRA | {"training"}
DOORS_TO_LIGHTNING = {"data/datamodule.py", "data/opened.py", "checkpoint/folder.py", "checkpoint/writing.py"}
ENTRY_SCRIPTS = [ROOT / name for name in ("train.py", "evaluate.py", "sample.py")]
FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every dotted name that a file imports, inside functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


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


IN_ROOMS = [path for path in FILES if path.parent != PACKAGE]


def test_every_file_lies_in_a_room_of_the_table():
    assert {room(path) for path in IN_ROOMS} == set(ROOMS)
    assert {path.name for path in FILES} - {path.name for path in IN_ROOMS} == {"__main__.py"}


def too_much(of, known):
    """What each file of a room imports beyond `known`, by the file's name."""
    return {name_of(path): more for path in IN_ROOMS if room(path) == of and (more := known(path))}


@pytest.mark.parametrize("of", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(of):
    assert not too_much(of, lambda path: inside(path) - MAY_IMPORT[of] - {of, "__version__"})


@pytest.mark.parametrize("of", sorted({*ROOMS} - KNOW_HYDRA))
def test_hydra_is_known_to_the_upper_rooms_only(of):
    assert not too_much(of, lambda path: outside(path) & {"hydra", "omegaconf"})


@pytest.mark.parametrize("of", sorted({*ROOMS} - KNOW_LIGHTNING))
def test_lightning_is_known_to_the_upper_rooms_and_its_doors_only(of):
    lightning = {"lightning", "pytorch_lightning"}
    assert not too_much(of, lambda path: outside(path) & lightning if name_of(path) not in DOORS_TO_LIGHTNING else ())


def test_the_mathematics_needs_nothing_but_torch():
    assert not too_much("diffusion", lambda path: outside(path) - {"torch"})


def test_the_package_itself_imports_nothing_before_it_is_used():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [node.module for node in at_once] == ["typing"]


@pytest.mark.parametrize("path", [path for path in ENTRY_SCRIPTS if path.exists()], ids=lambda path: path.name)
def test_an_entry_script_imports_only_the_top(path):
    assert outside(path) <= {"hydra", "omegaconf"}
    assert inside(path) <= {"commands", "runs"}
