"""Resuming: find the checkpoint, and check that the settings match."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.base.differing import differing
from ddpm.base.nested import flatten
from ddpm.checkpoint import folder as files
from ddpm.checkpoint import groups
from ddpm.checkpoint.stored_config import FITTED
from ddpm.runs import launch
from ddpm.runs.console import say
from ddpm.runs.portable import open_config, with_absolute_paths


def find_checkpoint(path: str | None, run_dir: str) -> Path | None:
    """The checkpoint of `resume.path`: None, a file, a run folder, or `auto` for the folder of this run.
    ValueError if there is none that can be read."""
    if path is None:
        return None
    if path != "auto" and not Path(path).is_dir():
        problem = checkpoint_problem(Path(path))
        if problem:
            raise ValueError(f"resume={path} {problem}")
        return Path(path)
    folder = Path(run_dir if path == "auto" else path)
    folder = folder if folder.name == "checkpoints" else folder / "checkpoints"
    found = files.newest_intact(folder)
    if found is None and path != "auto":
        raise ValueError(f"resume={path} must be a checkpoint or a run folder; {folder} has no intact checkpoint")
    return found


def checkpoint_problem(path: Path) -> str | None:
    if not path.is_file():
        return f"must be a checkpoint or a run folder, but {'is neither' if path.exists() else 'does not exist'}"
    problem = files.find_damage(path)
    if problem is None:
        return None
    others = [other for other in files.list_checkpoints(path.resolve().parent) if files.find_damage(other) is None]
    return f"is damaged: {problem}" + (f"; the newest intact one is {others[0]}" if others else "")


def refuse_changes(path: Path, stored: dict[str, Any], now: dict[str, Any], allow: Sequence[str]) -> None:
    """Raise ValueError with each setting that differs from the checkpoint and is not in `allow`."""
    known = flatten(now).keys() | {"data.content"}
    for name in allow:
        if not any(covers(name, key) for key in known):
            raise ValueError(f"resume.allow names an unknown setting: {name!r}{check.suggestion(name, known)}")
    changed = setting_differences(stored, now)
    lines_by_key = {key: f"{key}: {before} -> {after}" for key, (before, after) in changed.items()}
    refused = [key for key in lines_by_key if not any(covers(name, key) for name in allow)]
    if refused:
        lines = "\n".join(f"  {lines_by_key[key]}" for key in refused)
        raise ValueError(
            f"{path} was trained with other settings:\n{lines}\n"
            f"Set them back, or allow the change: 'resume.allow=[{','.join(refused)}]'"
        )
    for line in lines_by_key.values():
        if launch.is_first_process():
            say(f"changed on resuming: {line}")


def keep_chosen(config: DictConfig, stored: dict[str, Any]) -> None:
    """Set fields that are null to what the run of the checkpoint chose for them at its start."""
    before = open_config(stored)[0]
    for key in groups.chosen_at_the_start():
        group, field = key.split(".")
        if field in config[group] and config[group][field] is None:
            config[group][field] = OmegaConf.select(before, key)


def setting_differences(
    before: dict[str, Any], after: dict[str, Any], data_is_read: bool = True
) -> dict[str, tuple[Any, Any]]:
    """The settings of two trainings that differ. Configurations are in the format of `to_portable`.

    Settings that do not change the training are not compared (the number of steps does change it if the learning rate
    decays to the last step), nor are references to other settings. data_is_read: if false, data sets are compared by
    location instead of content, and values that `after` will fit to the data or choose at its start are ignored.
    """
    one, other = (resolved_leaves(with_absolute_paths(each)) for each in (before, after))
    leaves = [*one.items(), *other.items()]
    decays = any(value for key, value in leaves if key.endswith("optimizer.cosine_decay"))  # of any network
    counts = {"trainer.max_steps"} if decays else set()
    counts |= set() if data_is_read else {"data.source", "data.name"}
    later = () if data_is_read else (*flatten(before.get(FITTED, {})), *groups.chosen_at_the_start())
    to_come = {key for key in later if other.get(key) is None}
    free = [name for name in groups.changeable_on_resume() if name not in counts]
    found = sorted(differing(one, other, absent=MISSING).items())
    return {key: values for key, values in found if key not in to_come and not any(covers(name, key) for name in free)}


def resolved_leaves(stored: dict[str, Any]) -> dict[str, Any]:
    config, fitted = open_config(stored)
    resolved = flatten(OmegaConf.to_container(config, resolve=True))
    written = flatten(OmegaConf.to_container(config))
    references = {key for key, value in written.items() if isinstance(value, str) and "${" in value}
    return {key: value for key, value in resolved.items() if key not in references} | flatten(fitted)


MISSING = "not set"


def covers(name: str, key: str) -> bool:
    return key == name or key.startswith(f"{name}.")
