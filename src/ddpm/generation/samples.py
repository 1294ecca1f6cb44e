"""Generation is a data set: sample numbers, shared out among ranks as images are."""

from collections.abc import Iterator, Mapping
from typing import TypedDict

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.data.order import split_among_ranks
from ddpm.data.pixels import ImageData


class SampleBatch(TypedDict, total=False):
    index: Tensor  # int64 [B], the samples' numbers: with the seed, all that decides their noise
    label: Tensor  # int64 [B], -1 where there is none
    image: Tensor  # float32 [B, C, H, W] in [-1, 1], where samples are made from images
    words: Tensor  # int64 [B, N], where they are made from captions


NO_LABEL: Mapping[str, Tensor] = {"label": torch.tensor([-1])}


class SampleLoader:
    """The numbers 0..num_samples-1, each on exactly one rank, in batches of up to batch_size a rank.

    conditions: of the samples, as {"label": int64 `[n]`}, of which sample i takes row i modulo n.
    images: real images that samples are made from, in turn, with their labels.
    done_mask: bool `[num_samples]`, samples that exist already. A batch is left out only if all of it is there, and the
    others are those that they always were: kernels round differently in a batch of another size.
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
        """As many as the first rank has, were nothing there. Never 0: Lightning leaves out the hooks of such a rank."""
        return len(split_among_ranks(0, self.num_samples, 0, self.world_size, self.batch_size))

    def __iter__(self) -> Iterator[SampleBatch]:
        numbers = split_among_ranks(0, self.num_samples, self.rank, self.world_size, self.batch_size)
        plan = [index for index in numbers if not self.done_mask[index].all()]
        if self.images is None:
            for index in plan:
                yield SampleBatch(
                    index=index, **{name: rows[index % len(rows)] for name, rows in self.conditions.items()}
                )
            return
        chosen = [self.images.indices[index % len(self.images)] for index in plan]
        for index, some, pixels in zip(plan, chosen, self.images.pixels.reader(False).read(chosen), strict=True):
            image = pixels.to(torch.float32).div_(127.5).sub_(1)
            yield SampleBatch(index=index, label=self.images.labels[some], image=image)
