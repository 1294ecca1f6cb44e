"""Generation is a data set: sample numbers, shared out among ranks as images are."""

from collections.abc import Iterator, Sequence
from typing import TypedDict

import torch
from torch import Tensor

from ddpm import check
from ddpm.data.order import share


class SampleBatch(TypedDict):
    index: Tensor  # int64 [B], the samples' numbers: with the seed, all that decides their noise
    label: Tensor  # int64 [B], -1 where there is none


class SampleLoader:
    """The numbers start..start+num_samples-1, each on exactly one rank, in batches of up to batch_size a rank.

    labels: one class for all, or a sequence that sample i takes entry i (modulo its length) of, or None for -1.
    there: bool `[num_samples]`, samples that exist already. A batch is left out only if all of it is there, and the
    others are those that they always were: kernels round differently in a batch of another size.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        start: int = 0,
        labels: int | Sequence[int] | None = None,
        rank: int = 0,
        world_size: int = 1,
        there: Tensor | None = None,
    ):
        self.num_samples = check.positive_int("num_samples", num_samples)
        self.batch_size = check.positive_int("batch_size", batch_size)
        self.start = check.non_negative_int("start", start)
        self.labels = class_cycle(labels)
        self.rank = rank
        self.world_size = world_size
        self.there = torch.zeros(num_samples, dtype=torch.bool) if there is None else there

    def __len__(self) -> int:
        """As many as the first rank has, were nothing there. Never 0: Lightning leaves out the hooks of such a rank."""
        return len(share(0, self.num_samples, 0, self.world_size, self.batch_size))

    def __iter__(self) -> Iterator[SampleBatch]:
        for place in share(0, self.num_samples, self.rank, self.world_size, self.batch_size):
            if not self.there[place].all():
                index = self.start + place
                yield SampleBatch(index=index, label=self.labels[index % len(self.labels)])


def class_cycle(labels: int | Sequence[int] | None) -> Tensor:
    """int64 `[n]`, at least one entry."""
    if labels is None:
        return torch.tensor([-1])
    entries = list(labels) if isinstance(labels, Sequence) and not isinstance(labels, str) else [labels]
    if not entries:
        check.fail("labels", labels, "a class number or a list of at least one")
    return torch.tensor([check.integer("labels", entry, low=-1) for entry in entries], dtype=torch.int64)
