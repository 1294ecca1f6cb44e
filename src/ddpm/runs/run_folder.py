"""The folder of a run: the newest one of the same settings that has a whole checkpoint, or a new one of its own."""

import fcntl
import itertools
import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm.base import check
from ddpm.base.untrusted import yaml_file
from ddpm.checkpoint.stored_config import upgrade_config
from ddpm.checkpoint.upgrade import upgrade_word
from ddpm.runs import launch
from ddpm.runs.portable import open_config, to_portable

RUNS = Path("runs")
SETTINGS = "config.yaml"
"""Beside the checkpoints: what they were trained with, written once it is accepted."""


def add_run_folder(typed: list[str], conf: Path) -> list[str]:
    """What was typed, with the folder to use. The first process chooses it, and makes it if it is new."""
    flags, rest = get_args_parser().parse_known_args(typed)
    words = [*flags.overrides, *(word for word in rest if not word.startswith("-"))]
    asks_hydra = flags.cfg or flags.info or flags.hydra_help or flags.shell_completion or flags.experimental_rerun
    if launch.by_lightning() or asks_hydra:
        return typed
    launch.refuse_launcher(words)
    field = "hydra.sweep.dir" if flags.multirun else "hydra.run.dir"
    named = resume_path(words)
    if any(word.startswith(f"{field}=") for word in words):
        folder = None
    elif named not in (None, "auto") and Path(named).is_dir():
        folder = str(parent_run(Path(named)))
    else:
        folder = launch.share_choice(
            lambda: str(to_continue(words, conf, flags) or new_folder(words, conf, flags, field)), field
        )
    quiet = [] if launch.is_first_process() else ["hydra.output_subdir=null"]
    return [*typed, *([f"{field}={quote_for_hydra(folder)}"] if folder else []), *quiet]


def resume_path(words: list[str]) -> str | None:
    """The value of `resume.path`: None for a new run, auto, or a path. ValueError if nothing is at that path."""
    value = None
    for override in OverridesParser.create().parse_overrides(words):
        if override.key_or_group in ("resume", "resume.path"):
            value = override.value()
            if override.is_sweep_override() or value == "" or "${" in str(value):
                check.fail("resume", override.input_line.partition("=")[2], "auto, never, or the path of one run")
    if value in (None, "never", "auto"):
        return None if value == "never" else value
    if not Path(str(value)).exists():
        raise ValueError(f"resume must be a checkpoint or a run's folder, and nothing is at {str(value)!r}")
    return str(value)


def parent_run(folder: Path) -> Path:
    """The run's folder, for it or for its checkpoints."""
    return folder.parent if folder.name == "checkpoints" else folder


def quote_for_hydra(text: str) -> str:
    """A text as Hydra reads it back, whatever it looks like."""
    if re.fullmatch(r"[\w/.:-]+", text):
        return text
    escaped = re.sub(r"(\\*)('|\$\{)", r"\1\1\\\2", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps other trainings out of the folder for as long as this process lives; its workers have no part in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # systems differ
            raise ValueError(f"run_dir={folder} is in use by another training; let it end, or choose another") from None
        yield


def compose_config(words: list[str], conf: Path, flags: Namespace, **kwargs: bool) -> DictConfig:
    GlobalHydra.instance().clear()
    own = (
        [f"hydra.searchpath=[{quote_for_hydra(f'file://{Path(flags.config_dir).resolve()}')}]"]
        if flags.config_dir
        else []
    )
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        return compose(flags.config_name or "train", overrides=[*words, *own], **kwargs)


def new_folder(words: list[str], conf: Path, flags: Namespace, field: str) -> str:
    """A new folder, made now: as Hydra would name it, and with _2, _3, ... where another run was faster.

    Words with several values are for Hydra's sweeper to take apart.
    """
    overrides = OverridesParser.create().parse_overrides(words)
    single = [override.input_line for override in overrides if not override.is_sweep_override()]
    name = OmegaConf.select(compose_config(single, conf, flags, return_hydra_config=True), field)
    for number in itertools.count(1):
        folder = Path(name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return str(folder)
    raise AssertionError


def to_continue(words: list[str], conf: Path, flags: Namespace) -> Path | None:
    """With resume=auto, the run or the sweep of the same settings."""
    if resume_path(words) != "auto":
        return None
    return find_sweep(words) if flags.multirun else find_run(compose_config(words, conf, flags))


def find_run(config: DictConfig) -> Path | None:
    """The newest run whose training differs in no setting. If only others of its name are there, stderr says why."""
    from ddpm.checkpoint.folder import newest_intact
    from ddpm.runs.resume import covers, setting_differences

    now = to_portable(config)
    nearest: tuple[Path, dict[str, Any]] | None = None
    for path, content in stored_yaml(f"**/checkpoints/{SETTINGS}"):
        with skip_unreadable(path):
            stored = upgrade_config(content, str(path))
            changed = setting_differences(stored, now, data_is_read=False)
            changed = {k: each for k, each in changed.items() if not any(covers(a, k) for a in config.resume.allow)}
            if "${" in str(path):
                raise ValueError("its folder's name holds ${, which Hydra would replace")
            if not changed and newest_intact(path.parent):
                return path.parent.parent
            if open_config(stored)[0].get("name") == config.name and (
                nearest is None or len(changed) < len(nearest[1])
            ):
                nearest = path.parent.parent, changed
    if nearest:
        folder, changed = nearest
        lines = [f"  {key}: {before} -> {after}" for key, (before, after) in changed.items()]
        remedy = f"to go on with it, set them back or add 'resume.allow=[{','.join(changed)}]'"
        reasons = ["it differs in", *lines, remedy] if changed else ["it has no whole checkpoint"]
        print(f"resume=auto begins a new run; of those named {config.name}, the nearest is {folder}:", file=sys.stderr)
        print("\n".join(reasons), file=sys.stderr)
    return None


def find_sweep(words: list[str]) -> Path | None:
    """The newest sweep of the same words."""
    wanted = sorted(word for word in words if not word.startswith(("hydra.", "hydra/")))
    for path, content in stored_yaml("*/multirun.yaml"):
        with skip_unreadable(path):
            if sorted(map(upgrade_word, content["hydra"]["overrides"]["task"])) == wanted:
                return path.parent
    return None


def stored_yaml(pattern: str) -> Iterator[tuple[Path, Any]]:
    """The files under runs/ that fit and their content, those of the folders that changed last first."""
    changed = []
    for path in RUNS.glob(pattern):
        with skip_unreadable(path):
            changed.append((parent_run(path.parent).stat().st_mtime, path))
    for _, path in sorted(changed, reverse=True):
        with skip_unreadable(path):
            yield path, yaml_file(path)


@contextmanager
def skip_unreadable(path: Path) -> Iterator[None]:
    """What is wrong with another run's file is said, and does not stop this one."""
    try:
        yield
    except (ValueError, OSError, TypeError, KeyError, OmegaConfBaseException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        print(f"{path} cannot be read and is passed over: {reason}", file=sys.stderr)
