"""Latents of a data set that were encoded once, in place of its images."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SHARD = 1024
"""Images in a file."""


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npy"


def is_shard(path: Path, num: int) -> bool:
    """Whether there is a whole file of `num` images. The latents themselves are not read."""
    try:
        return len(np.load(path, mmap_mode="r")) == num
    except (OSError, ValueError, EOFError):
        return False


@dataclass(frozen=True)
class CachedLatents:
    """The moments of images, float16 `[n, V, M, h, w]` in files of `SHARD` images, with V = 2 if the second is of the
    mirrored image. row: int64 `[N]`, the row of each image of the source."""

    folder: Path
    row: Tensor

    def full_reader(self, persistent: bool) -> "CachedLatents":
        return self

    def read(self, plan: list[Tensor]) -> Iterator[Tensor]:
        """For each int64 `[B]` of image numbers in `plan`, float16 `[B, V, M, h, w]`."""
        for indices in plan:
            rows = self.row[indices].tolist()
            yield torch.from_numpy(np.stack([self._shards[row // SHARD][row % SHARD] for row in rows]))

    def fields(self, stored: Tensor, mirrored: Tensor | None = None) -> dict[str, Tensor]:
        """latent: float32 `[B, M, h, w]`. mirrored: bool `[B]`."""
        variant = torch.zeros(len(stored), dtype=torch.int64) if mirrored is None else mirrored.long()
        return {"latent": stored[torch.arange(len(stored)), variant].float()}

    @cached_property
    def _shards(self) -> list[np.ndarray]:
        num = -(-int(self.row.max() + 1) // SHARD)
        return [np.load(shard_path(self.folder, number), mmap_mode="r") for number in range(num)]
