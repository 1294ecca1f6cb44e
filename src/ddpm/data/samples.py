"""Generation is a data set: sample numbers, shared out among ranks as images are."""

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

from ddpm import check
from ddpm.data.order import share


class SampleBatch(TypedDict):
    index: Tensor  # int64 [B], the samples' numbers: with the seed, all that decides their noise
    label: Tensor  # int64 [B], -1 where there is none


class SampleLoader:
    """The numbers start..start+num_samples-1, each on exactly one rank, in batches of up to batch_size a rank.

    labels: one class for all, or a sequence that sample i takes entry i (modulo its length) of, or None for -1. The
    position counts handed-out batches, as TrainLoader's does; a saved one can be resumed with another number of ranks
    or batch size, because the k-th batches of all ranks cover a stretch of numbers without gaps.
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
    ):
        self.num_samples = check.positive_int("num_samples", num_samples)
        self.batch_size = check.positive_int("batch_size", batch_size)
        self.start = check.non_negative_int("start", start)
        self.labels = class_cycle(labels)
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0  # how often all samples have been handed out
        self.done = 0  # how many of this time's samples all ranks together have handed out

    def __len__(self) -> int:
        """Batches of the whole, wherever the loader stands."""
        return len(self._shares(0))

    def __iter__(self) -> Iterator[SampleBatch]:
        epoch, first = self.epoch, self.done
        shares = self._shares(first)
        if not shares:  # the other ranks have the few samples that are left
            self.epoch, self.done = epoch + 1, 0
        for number, index in enumerate(shares, start=1):
            done = first + number * self.batch_size * self.world_size
            self.epoch, self.done = (epoch, done) if number < len(shares) else (epoch + 1, 0)
            yield SampleBatch(index=index, label=self.labels[index % len(self.labels)])

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "done": self.done, **self._fixed()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in self._fixed().items():
            if state[name] != value:
                check.fail(name, value, f"{state[name]}, as in the run that is to be continued")
        self.epoch, self.done = int(state["epoch"]), int(state["done"])

    def _shares(self, done: int) -> list[Tensor]:
        return share(self.start + done, self.start + self.num_samples, self.rank, self.world_size, self.batch_size)

    def _fixed(self) -> dict[str, int]:
        return {"num_samples": self.num_samples, "start": self.start}


def class_cycle(labels: int | Sequence[int] | None) -> Tensor:
    """int64 `[n]`, at least one entry."""
    if labels is None:
        return torch.tensor([-1])
    entries = list(labels) if isinstance(labels, Sequence) and not isinstance(labels, str) else [labels]
    if not entries:
        check.fail("labels", labels, "a class number or a list of at least one")
    return torch.tensor([check.integer("labels", entry, low=-1) for entry in entries], dtype=torch.int64)
