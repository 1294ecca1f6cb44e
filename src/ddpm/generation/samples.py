"""Sample numbers as a data set, distributed among ranks like images."""

from collections.abc import Iterator, Mapping
from typing import TypedDict

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.data.order import split_among_ranks
from ddpm.data.pixels import ImageData


class SampleBatch(TypedDict, total=False):
    index: Tensor  # int64 [B], sample numbers; together with the seed, they determine the noise
    label: Tensor  # int64 [B], -1 for no label
    image: Tensor  # float32 [B, C, H, W] in [-1, 1], if samples start from images
    label_map: Tensor  # uint8 [B, H, W], the labels of these images
    words: Tensor  # int64 [B, N], if the condition is words of attributes
    caption: Tensor  # int64 [B, N], if the condition is a caption with a trained text encoder
    tokens: Tensor  # float32 [B, N, C], if it is one with a frozen text encoder


NO_LABEL: Mapping[str, Tensor] = {"label": torch.tensor([-1])}


class SampleLoader:
    """The numbers 0..num_samples-1, each on exactly one rank, in batches of up to batch_size per rank.

    conditions: for example {"label": int64 `[n]`}; sample i uses row i modulo n. images: real images from which samples
    start, used in the same way, with their labels. done_mask: bool `[num_samples]`, samples that exist already. A batch
    is skipped only if all of its samples exist, and the other batches stay the same, because kernels round differently
    for another batch size.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        conditions: Mapping[str, Tensor] = NO_LABEL,
        images: ImageData | None = None,
        rank: int = 0,
        world_size: int = 1,
        done_mask: Tensor | None = None,
    ):
        self.num_samples = check.positive_int("num_samples", num_samples)
        self.batch_size = check.positive_int("batch_size", batch_size)
        self.conditions = {**NO_LABEL, **conditions}
        self.images = images
        self.rank = rank
        self.world_size = world_size
        self.done_mask = torch.zeros(num_samples, dtype=torch.bool) if done_mask is None else done_mask

    def __len__(self) -> int:
        """Batches of the first rank without `done_mask`: never 0, because Lightning would skip hooks of the rank."""
        return len(split_among_ranks(0, self.num_samples, 0, self.world_size, self.batch_size))

    def __iter__(self) -> Iterator[SampleBatch]:
        numbers = split_among_ranks(0, self.num_samples, self.rank, self.world_size, self.batch_size)
        plan = [index for index in numbers if not self.done_mask[index].all()]
        if self.images is None:
            for index in plan:
                conditions = {name: rows[index % len(rows)] for name, rows in self.conditions.items()}
                yield SampleBatch(index=index, **conditions)
            return
        chosen = [self.images.indices[index % len(self.images)] for index in plan]
        pixels = self.images.pixels
        for index, some, stored in zip(plan, chosen, pixels.full_reader(False).read(chosen), strict=True):
            yield SampleBatch(index=index, **pixels.fields(stored), **self.images.conditions(some))
