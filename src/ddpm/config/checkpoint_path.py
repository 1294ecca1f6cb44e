"""The checkpoint that a field names: a file, a run folder, `latest`, a pattern, or hf:OWNER/NAME of the hub."""

import glob
import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.checkpoint.folder import list_checkpoints, newest_intact
from ddpm.checkpoint.reading import hold
from ddpm.config.field_types import check_type
from ddpm.interop import hub
from ddpm.runs import launch

NAMED_IN_COMMANDS = ("ckpt", "codec.first_stage", "guidance.guide", "guidance.classifier", "task.base")
"""Fields of a command that name a checkpoint, and so a folder of the hub that may be downloaded."""


def fetch_checkpoints(config: DictConfig) -> DictConfig:
    """The configuration of a command, in which names of the hub have their commit, and other checkpoints of parts their
    absolute paths, so that a later run does not change what is stored. Folders of the hub are in its cache now.

    A configuration stored in a checkpoint never comes here, so it causes no download.
    """
    config = config.copy()
    for field in NAMED_IN_COMMANDS:
        value = OmegaConf.select(config, field)
        check_type(field, value, str | None)
        if isinstance(value, str) and (name := resolve(value, field)) != value:
            OmegaConf.update(config, field, name)
    return config


def resolve(ckpt: str, field: str) -> str:
    """A name of the hub with its commit; in other fields than `ckpt`, the absolute path of the checkpoint."""
    if hub.is_hub_name(ckpt) or field == "ckpt":
        return fetch(ckpt, field)
    path = checkpoint_path(ckpt, field)
    return str(path.resolve()) if path.exists() else ckpt


def fetch(ckpt: str, field: str = "ckpt") -> str:
    """A name of the hub with its commit, the same on all ranks; its folder is in the cache now. Others as they are."""
    if not hub.is_hub_name(ckpt):
        return ckpt
    name = launch.share_choice(lambda: str(hub.resolve(ckpt, field)), f"{field}={ckpt}")
    hub.download(hub.parse(name, field), field)
    return name


def checkpoint_path(ckpt: str, field: str = "ckpt") -> Path:
    """The path of `ckpt`: for `latest`, the newest intact checkpoint under runs/; for a run folder, its newest one; for
    a name of the hub, its folder in the hub's cache. A pattern must match one path.

    field: the field that has the value, for error messages.

    All ranks get the same path. A file is held open (`ddpm.checkpoint.reading`).
    """
    if not isinstance(ckpt, str) or not ckpt:
        check.fail(field, ckpt, "the path of a checkpoint or of a run, or latest")
    if hub.is_hub_name(ckpt):
        return hub.cached_folder(ckpt, field)
    path = Path(str(ckpt))
    if is_pattern(ckpt):
        path = Path(launch.share_choice(lambda: only_match(ckpt, field), f"{field}={ckpt}"))
    if path.name == "checkpoints" and path.is_dir():
        path = path.parent
    if ckpt == "latest" or (path / "checkpoints").is_dir():
        name = str(ckpt if ckpt == "latest" else path)
        path = Path(launch.share_choice(lambda: str(newest_of(name, field)), f"ckpt={name}"))
    if path.is_file():
        hold(path)
    return path


def is_pattern(ckpt: str) -> bool:
    """Whether it has characters of a pattern and is no path itself."""
    return glob.has_magic(str(ckpt)) and not Path(str(ckpt)).exists()


def only_match(pattern: str, field: str) -> str:
    """The one path that the pattern matches, where links to one file count once."""
    found = {os.path.realpath(path): path for path in sorted(glob.glob(pattern), reverse=True)}
    if len(found) != 1:
        matches = f"; it matches {', '.join(sorted(found.values())[:5])}" if found else ""
        raise ValueError(f"{field} must match one path, and {pattern!r} matches {len(found)}{matches}")
    return next(iter(found.values()))


def newest_of(ckpt: str, field: str) -> Path:
    """Find and hold the newest checkpoint. If a running training removes it, there is a newer one: try again."""
    for attempt in range(20):
        try:
            path = newest_under_runs(field) if ckpt == "latest" else newest_intact(Path(ckpt) / "checkpoints")
            if path is not None:
                hold(path)
            return path or Path(ckpt)
        except FileNotFoundError:
            if attempt == 19:
                raise
    raise AssertionError


def newest_under_runs(field: str) -> Path:
    newest = [list_checkpoints(folder)[0] for folder in Path("runs").glob("**/checkpoints") if list_checkpoints(folder)]
    newest.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    found = next(filter(None, (newest_intact(path.parent) for path in newest)), None)
    if found is None:
        raise ValueError(f"{field}=latest finds no intact checkpoint under runs/; train first, or give a path")
    return found
