"""Checkpoints that are whole or absent: written beside the target, synced to the disk, renamed over it, and hashed."""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from ddpm.base.atomic import sync, write_atomically
from ddpm.checkpoint.integrity import sidecar
from ddpm.checkpoint.layout import upgrade_layout


class HashedFile:
    """A file being written whose sha256 is known when it is done, without reading it again."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's own writer moves a file from the system's temp folder, which across file systems is a slow copy.

    A write that fails (a full disk) leaves everything as it was. It is not raised, since only the first rank writes and
    the others would wait for it for ever, but kept in `failure` until the next write.
    """

    def __init__(self) -> None:
        self.failure: str | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        target = Path(path)
        partial = target.with_name(f".{target.name}.partial")
        self.failure = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = write_synced(checkpoint, partial)
            sidecar(target).unlink(missing_ok=True)  # a kill now leaves a file without a hash, never with a wrong one
            os.replace(partial, target)
            write_atomically(sidecar(target), f"{digest}  {target.name}\n".encode())
            sync(target.parent)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            self.failure = str(error).splitlines()[0]

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As data only, in today's layout. Lightning's spawned processes hand back bare weights in this way too.

        What a stranger's file may hold is checked where the path comes from (`ddpm.checkpoint.reading`).
        """
        stored = torch.load(path, map_location="cpu", weights_only=True)
        return upgrade_layout(stored) if "state_dict" in stored else stored


def write_synced(checkpoint: dict[str, Any], path: Path) -> str:
    """Writes and returns the sha256."""
    with open(path, "wb") as file:
        hashed = HashedFile(file)
        torch.save(checkpoint, hashed)
        file.flush()
        os.fsync(file.fileno())
    return hashed.sha256.hexdigest()
