"""The checkpoints in a run's folder: which there are, which is the newest whole one, and the links to them."""

import os
import re
from pathlib import Path

from ddpm.checkpoint.integrity import find_damage, sidecar


def path_of_step(folder: Path, step: int) -> Path:
    return folder / f"{step:08d}.ckpt"


def step_of(path: Path) -> int:
    return int(path.stem)


def list_checkpoints(folder: Path) -> list[Path]:
    """Those that carry their step as a name, newest first."""
    found = [path for path in folder.glob("*.ckpt") if re.fullmatch(r"\d{8,}", path.stem) and not path.is_symlink()]
    return sorted(found, key=step_of, reverse=True)


def newest_intact(folder: Path) -> Path | None:
    """The newest checkpoint that verifies. One that does not is named in a warning and passed over."""
    for path in list_checkpoints(folder):
        try:
            problem = find_damage(path)
        except OSError as error:
            problem = str(error)
        if problem is None:
            return path
        if not path.exists():  # removed by a training that goes on, and has written a newer one
            return newest_intact(folder)
        from lightning.pytorch.utilities import rank_zero_warn  # takes a second to import, and is seldom needed

        rank_zero_warn(f"{path} cannot be used: {problem}. Taking the one before")
    return None


def point_link(link: Path, target: Path) -> None:
    """Makes `link` a link to `target` in the same folder; a kill leaves the old link or the new one."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target.name)
    os.replace(new, link)


def remove(path: Path) -> None:
    """The hash first: a file without one can still be checked by its CRCs."""
    sidecar(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def set_aside(folder: Path, step: int) -> None:
    """Renames what lies after a step that a run goes back to (or is damaged): it is not that run's future any more."""
    from lightning.pytorch.utilities import rank_zero_info

    for path in list_checkpoints(folder):
        if step_of(path) > step:
            rank_zero_info(f"{path} is of an abandoned or damaged run; renamed to {path.name}.aside")
            sidecar(path).unlink(missing_ok=True)
            path.rename(path.with_name(path.name + ".aside"))
