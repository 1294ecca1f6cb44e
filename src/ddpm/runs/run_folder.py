"""The folder of a run: a new one, or the newest one with the same settings and an intact checkpoint."""

import itertools
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm.base import check
from ddpm.base.untrusted import yaml_file
from ddpm.checkpoint.stored_config import upgrade_config
from ddpm.checkpoint.upgrade import upgrade_word
from ddpm.runs import launch
from ddpm.runs.arguments import jobs, quote_for_hydra, split_arguments
from ddpm.runs.lease import LEASE, refuse_in_use
from ddpm.runs.portable import open_config, to_portable

RUNS = Path("runs")
NEW: list[list[Path]] = []
"""Folders that this command chose and made, each with those above it that it made too."""
HYDRAS = {".hydra", "multirun.yaml"}
"""What Hydra writes into a folder before the program starts, beside its logs."""
SETTINGS = "config.yaml"
"""File beside the checkpoints with the settings of the training."""


Adapt = Callable[[DictConfig, list[str]], Any]
"""Changes a configuration as the program does after it is composed from the words."""


def add_run_folder(typed: list[str], conf: Path, adapt: Adapt = lambda config, words: None) -> list[str]:
    """The arguments with the run folder added. The first process chooses it, and creates a new one."""
    flags, words = split_arguments(typed)
    asks_hydra = flags.cfg or flags.info or flags.hydra_help or flags.shell_completion or flags.experimental_rerun
    if launch.by_lightning() or asks_hydra:
        return typed
    launch.refuse_launcher(words)
    field = "hydra.sweep.dir" if flags.multirun else "hydra.run.dir"
    named = resume_path(words)
    given = given_folder(words, field)
    if given is not None and (not given or Path(given).is_file()):
        check.fail("run_dir", given, "the path of a folder")
    if given:
        folder = None
    elif named not in (None, "auto") and Path(named).is_dir():
        folder = str(parent_run(Path(named)))
    else:
        folder = launch.share_choice(
            lambda: str(to_continue(words, conf, flags, adapt) or new_folder(words, conf, flags, field)), field
        )
    chosen = [f"{field}={quote_for_hydra(folder)}"] if folder else []
    if launch.is_first_process():
        for each in folders_to_write([*words, *chosen], conf, flags, str(folder or given)):
            refuse_in_use(each, waits=named is not None)
    quiet = [] if launch.is_first_process() else ["hydra.output_subdir=null"]
    return [*typed, *chosen, *quiet]


def folders_to_write(words: list[str], conf: Path, flags: Namespace, folder: str) -> Iterator[Path]:
    """The folder of the run, or those of the jobs of a sweep. A sweep in whose folder nobody writes has none."""
    if not flags.multirun and "${" not in folder:
        yield Path(folder)
    elif not flags.multirun or "${" in folder or any(Path(folder).rglob(LEASE)):
        field, names = ("hydra.sweep", ("dir", "subdir")) if flags.multirun else ("hydra.run", ("dir",))
        for number, job in enumerate(jobs(words)):
            config = compose_config([*job, f"hydra.job.num={number}"], conf, flags, return_hydra_config=True)
            yield Path(*(str(OmegaConf.select(config, f"{field}.{name}")) for name in names))


def given_folder(words: list[str], field: str) -> str | None:
    """The folder that the command names; None if it names none."""
    found = [each for each in OverridesParser.create().parse_overrides(words) if each.key_or_group == field]
    return str(found[-1].value()) if found else None


def resume_path(words: list[str]) -> str | None:
    """The value of `resume.path`: None for a new run, auto, or a path. Raises ValueError if the path does not exist."""
    value = None
    for override in OverridesParser.create().parse_overrides(words):
        if override.key_or_group in ("resume", "resume.path"):
            value = override.value()
            if override.is_sweep_override() or value == "" or "${" in str(value):
                check.fail("resume", override.input_line.partition("=")[2], "auto, never, or the path of one run")
    if value in (None, "never", "auto"):
        return None if value == "never" else value
    if not Path(str(value)).exists():
        raise ValueError(f"resume must be auto, a checkpoint or a run folder, but {str(value)!r} does not exist")
    return str(value)


def parent_run(folder: Path) -> Path:
    """The run folder, for itself or its folder of checkpoints."""
    return folder.parent if folder.name == "checkpoints" else folder


def compose_config(words: list[str], conf: Path, flags: Namespace, **kwargs: bool) -> DictConfig:
    GlobalHydra.instance().clear()
    own = []
    if flags.config_dir:
        own = [f"hydra.searchpath=[{quote_for_hydra(f'file://{Path(flags.config_dir).resolve()}')}]"]
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        return compose(flags.config_name or "train", overrides=[*words, *own], **kwargs)


def new_folder(words: list[str], conf: Path, flags: Namespace, field: str) -> str:
    """Create a new folder, named as by Hydra for the first job of a sweep, with _2, _3, ... if the name is taken."""
    config = compose_config(next(jobs(words)), conf, flags, return_hydra_config=True)
    if not re.fullmatch(r"[^/\0]+", "" if config.name is None else str(config.name)):
        check.fail("name", config.name, "a text without /, which is a part of the folder's name")
    name = OmegaConf.select(config, field)
    for number in itertools.count(1):
        folder = Path(name if number == 1 else f"{name}_{number}")
        new = [each for each in (folder.absolute(), *folder.absolute().parents) if not each.exists()]
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        NEW.append(new)
        return str(folder)
    raise AssertionError


@contextmanager
def without_unused_folders() -> Iterator[None]:
    """Remove the folders that this command chose and in which only Hydra has written, as after a mistake."""
    try:
        yield
    finally:
        while NEW:
            folder, *above = NEW.pop()
            files = (path for path in folder.rglob("*") if not path.is_dir())
            if all(path.suffix == ".log" or {path.name, path.parent.name} & HYDRAS for path in files):
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):
                    for each in above:
                        each.rmdir()


def to_continue(words: list[str], conf: Path, flags: Namespace, adapt: Adapt) -> Path | None:
    """With resume=auto, the run or sweep with the same settings, or None."""
    if resume_path(words) != "auto":
        return None
    if flags.multirun:
        return find_sweep(words)
    config = compose_config(words, conf, flags)
    adapt(config, words)
    return find_run(config)


def find_run(config: DictConfig) -> Path | None:
    """The newest run with the same settings, or None. Prints how the nearest run of the same name differs."""
    from ddpm.checkpoint.folder import list_checkpoints, newest_intact
    from ddpm.runs.resume import covers, setting_differences

    now = to_portable(config)
    nearest: tuple[Path, dict[str, Any]] | None = None
    folders = (path for path in RUNS.glob("**/checkpoints") if list_checkpoints(path) or (path / SETTINGS).exists())
    for path, content in stored_yaml(path / SETTINGS for path in folders):
        with skip_unreadable(path):
            stored = upgrade_config(content, str(path))
            changed = setting_differences(stored, now, data_is_read=False)
            changed = {k: each for k, each in changed.items() if not any(covers(a, k) for a in config.resume.allow)}
            if "${" in str(path):
                raise ValueError("its folder's name contains ${, which Hydra would interpolate")
            if not changed and newest_intact(path.parent):
                return path.parent.parent
            has_name = open_config(stored)[0].get("name") == config.name
            if has_name and (nearest is None or len(changed) < len(nearest[1])):
                nearest = path.parent.parent, changed
    if nearest:
        folder, changed = nearest
        lines = [f"  {key}: {before} -> {after}" for key, (before, after) in changed.items()]
        remedy = f"to continue it, set them back or add 'resume.allow=[{','.join(changed)}]'"
        reasons = ["it differs in", *lines, remedy] if changed else ["it has no intact checkpoint"]
        print(f"resume=auto starts a new run; of those named {config.name}, the nearest is {folder}:", file=sys.stderr)
        print("\n".join(reasons), file=sys.stderr)
    return None


def find_sweep(words: list[str]) -> Path | None:
    """The newest sweep with the same arguments, or None."""
    wanted = sorted(word for word in words if not word.startswith(("hydra.", "hydra/")))
    for path, content in stored_yaml(RUNS.glob("*/multirun.yaml")):
        with skip_unreadable(path):
            if sorted(map(upgrade_word, words_of_sweep(content))) == wanted:
                return path.parent
    return None


def words_of_sweep(content: Any) -> list[str]:
    """The arguments in the content of a multirun.yaml."""
    for name in ("hydra", "overrides", "task"):
        content = content.get(name) if isinstance(content, dict) else None
    if not isinstance(content, list) or not all(isinstance(word, str) for word in content):
        check.fail("hydra.overrides.task", content, "a list of texts")
    return content


def stored_yaml(paths: Iterable[Path]) -> Iterator[tuple[Path, Any]]:
    """YAML files of runs and their content, newest folders first."""
    changed = []
    for path in paths:
        with skip_unreadable(path):
            changed.append((parent_run(path.parent).stat().st_mtime, path))
    for _, path in sorted(changed, reverse=True):
        with skip_unreadable(path):
            yield path, yaml_file(path)


@contextmanager
def skip_unreadable(path: Path) -> Iterator[None]:
    """Print errors of another run's file instead of raising them."""
    try:
        yield
    except (ValueError, OSError, TypeError, KeyError, OmegaConfBaseException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        print(f"{path} cannot be read and is skipped: {reason}", file=sys.stderr)
