"""The checkpoint that `ckpt=` names: a file, a run folder, or `latest`."""

from pathlib import Path

from ddpm.checkpoint.folder import list_checkpoints, newest_intact
from ddpm.checkpoint.reading import hold
from ddpm.runs import launch


def checkpoint_path(ckpt: str) -> Path:
    """The path of `ckpt`: for `latest`, the newest intact checkpoint under runs/; for a run folder, its newest one.

    All ranks get the same path. A file is held open (`ddpm.checkpoint.reading`).
    """
    path = Path(str(ckpt))
    if ckpt == "latest" or (path / "checkpoints").is_dir():
        path = Path(launch.share_choice(lambda: str(newest_of(ckpt)), f"ckpt={ckpt}"))
    if path.is_file():
        hold(path)
    return path


def newest_of(ckpt: str) -> Path:
    """Find and hold the newest checkpoint. Retries if a running training removes it, because a newer one then
    exists."""
    for attempt in range(20):
        try:
            path = newest_under_runs() if ckpt == "latest" else newest_intact(Path(ckpt) / "checkpoints")
            if path is not None:
                hold(path)
            return path or Path(ckpt)
        except FileNotFoundError:
            if attempt == 19:
                raise
    raise AssertionError


def newest_under_runs() -> Path:
    newest = [list_checkpoints(folder)[0] for folder in Path("runs").glob("**/checkpoints") if list_checkpoints(folder)]
    newest.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    found = next(filter(None, (newest_intact(path.parent) for path in newest)), None)
    if found is None:
        raise ValueError("ckpt=latest finds no intact checkpoint under runs/; train first, or give a path")
    return found
