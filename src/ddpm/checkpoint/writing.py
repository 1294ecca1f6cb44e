"""Atomic checkpoint writes: to a temporary file in the same folder, synced, renamed and hashed."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from ddpm.base.atomic import sync, write_atomically
from ddpm.base.system_errors import naming
from ddpm.checkpoint.integrity import sidecar
from ddpm.checkpoint.layout import upgrade_layout


class HashedFile:
    """A file that computes its sha256 while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically. Lightning's own writer copies from the temporary folder of the system.

    If a write fails (full disk), the previous files are unchanged. The error is kept in `failure` until the next write.
    It is not raised, because only the first rank writes and the others would wait forever.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        target = Path(path)
        partial = target.with_name(f".{target.name}.partial")
        self.failure = None
        try:
            with naming(target, partial):
                target.parent.mkdir(parents=True, exist_ok=True)
                digest = write_synced(checkpoint, partial)
                sidecar(target).unlink(missing_ok=True)  # a kill here leaves a file without a hash, not a wrong hash
                os.replace(partial, target)
            write_atomically(sidecar(target), f"{digest}  {target.name}\n".encode())
            sync(target.parent)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                partial.unlink()
            cause = error.__context__  # torch raises a RuntimeError after a failed write
            self.failure = cause if isinstance(error, RuntimeError) and isinstance(cause, OSError) else error

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a file as data only, and upgrade its layout. Spawned processes also return bare weights through this
        method.

        `ddpm.checkpoint.reading` checks untrusted files before.
        """
        stored = torch.load(path, map_location="cpu", weights_only=True)
        return upgrade_layout(stored) if "state_dict" in stored else stored


def write_synced(checkpoint: dict[str, Any], path: Path) -> str:
    """Write a checkpoint, sync it, and return its sha256 as hexadecimal digits."""
    with open(path, "wb") as file:
        hashed = HashedFile(file)
        torch.save(checkpoint, hashed)
        file.flush()
        os.fsync(file.fileno())
    return hashed.sha256.hexdigest()
