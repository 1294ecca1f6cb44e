"""The checkpoints in a run folder: list them, find the newest intact one, update links."""

import os
import re
from pathlib import Path

from ddpm.base import atomic
from ddpm.checkpoint.integrity import find_damage, sidecar


def path_of_step(folder: Path, step: int) -> Path:
    return folder / f"{step:08d}.ckpt"


def step_of(path: Path) -> int:
    return int(path.stem)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints named by their step, newest first."""
    found = [path for path in folder.glob("*.ckpt") if re.fullmatch(r"\d{8,}", path.stem) and not path.is_symlink()]
    return sorted(found, key=step_of, reverse=True)


def newest_intact(folder: Path) -> Path | None:
    """The newest checkpoint that passes verification, or None. Damaged ones are skipped with a warning."""
    for path in list_checkpoints(folder):
        try:
            problem = find_damage(path)
        except OSError as error:
            problem = str(error)
        if problem is None:
            return path
        if not path.exists():  # removed by a running training, which has written a newer one
            return newest_intact(folder)
        from lightning.pytorch.utilities import rank_zero_warn  # slow to import and rarely needed

        rank_zero_warn(f"{path} cannot be used: {problem}. Using the previous one")
    return None


def point_link(link: Path, target: Path) -> None:
    """Make `link` point to `target` in the same folder, atomically."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target.name)
    os.replace(new, link)


def remove(path: Path) -> None:
    """Remove a checkpoint and its hash. The hash goes first, because a file without one is checked by its CRCs."""
    sidecar(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def set_aside(folder: Path, step: int) -> None:
    """Rename the checkpoints after `step`, from which a run continues, to NAME.aside."""
    from lightning.pytorch.utilities import rank_zero_info

    for path in list_checkpoints(folder):
        if step_of(path) > step:
            sidecar(path).unlink(missing_ok=True)
            aside = atomic.set_aside(path)
            rank_zero_info(f"{path} belongs to an abandoned or damaged run; renamed to {aside.name}")
