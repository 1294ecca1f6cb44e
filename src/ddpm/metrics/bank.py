"""Collects features over batches and ranks into the features of all real or all generated images."""

from collections.abc import Collection, Mapping
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from ddpm.metrics.score import FeatureSet, Moments

BLOCK = 4096  # rows: 32 MiB for 2048 features, which the allocator returns to the system


class FeatureBank:
    """Features of all images of one kind. Each image is given once, in any order and on any rank.

    dims: width of each layer. moments: layers whose sums are stored, in float64, and added over ranks. rows: layers
    whose features are stored for each image, 4 bytes per number on this device.
    """

    def __init__(self, kind: str, dims: Mapping[str, int], moments: Collection[str], rows: Collection[str]) -> None:
        self.kind, self.dims = kind, dict(dims)
        self.with_moments, self.with_rows = tuple(moments), tuple(rows)
        self.device = torch.device("cpu")
        self.clear()

    def clear(self) -> None:
        """Forget all images. Empty tensors remain, so that a rank without images can gather shapes."""
        self.ids, self.labels = (Rows((), torch.int64, self.device) for _ in range(2))
        exact = {"dtype": torch.float64, "device": self.device}
        self.sums = {layer: torch.zeros(self.dims[layer], **exact) for layer in self.with_moments}
        self.outer = {layer: torch.zeros(self.dims[layer], self.dims[layer], **exact) for layer in self.with_moments}
        self.rows = {layer: Rows((self.dims[layer],), torch.float32, self.device) for layer in self.with_rows}

    def to(self, device: torch.device | str) -> Self:
        self.device = torch.device(device)
        self.sums, self.outer = ({k: v.to(device) for k, v in sums.items()} for sums in (self.sums, self.outer))
        for rows in (self.ids, self.labels, *self.rows.values()):
            rows.to(self.device)
        return self

    def update(self, features: Mapping[str, Tensor], ids: Tensor, labels: Tensor | None = None) -> None:
        """features: `[B, d]` of each layer. ids, labels: int64 `[B]`."""
        self.ids.append(ids)
        self.labels.append(torch.full_like(ids, -1) if labels is None else labels)
        for layer in self.with_moments:
            exact = features[layer].double()
            self.sums[layer] += exact.sum(0)
            self.outer[layer].addmm_(exact.T, exact)
        for layer in self.with_rows:
            self.rows[layer].append(features[layer])

    def sets(self) -> dict[str, FeatureSet]:
        """The set of each layer over all ranks; all ranks must call this. ValueError if an image was given twice."""
        order = self.ids.whole().argsort()
        for rows in (self.ids, self.labels, *self.rows.values()):
            rows.sort(order)
        ids, order = over_ranks(self.ids.whole()).sort()
        self._refuse_repeats(ids)
        labels = over_ranks(self.labels.whole())[order]
        sets = {}
        for layer in self.dims:
            moments = rows = None
            if layer in self.with_moments:
                sums, outer = sum_over_ranks(self.sums[layer]), sum_over_ranks(self.outer[layer])
                moments = Moments.from_sums(len(ids), sums, outer)
            if layer in self.with_rows:
                rows = self.rows[layer].whole()
                rows = over_ranks(rows)[order] if is_distributed() else rows
            sets[layer] = FeatureSet(len(ids), moments, rows, ids, labels)
        return sets

    def _refuse_repeats(self, ids: Tensor) -> None:
        twice = ids[1:][ids[1:] == ids[:-1]].unique()
        if len(twice):
            raise ValueError(
                f"{len(twice)} {self.kind} images were given more than once, e.g. number {int(twice[0])}: a sampler "
                "that pads the ranks to equal length repeats images (DistributedSampler does); shard by number instead"
            )


class Rows:
    """Rows that are appended in batches and stored in large blocks.

    Storing each batch by itself would fragment the memory, by 1 MB with each batch of 64. shape: of one row.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.blocks = [torch.empty(0, *shape, dtype=dtype, device=device)]
        self.num_in_last = 0

    def to(self, device: torch.device) -> None:
        self.blocks = [block.to(device) for block in self.blocks]

    def append(self, batch: Tensor) -> None:
        while len(batch):
            last = self.blocks[-1]
            room = len(last) - self.num_in_last
            if not room:
                self.blocks.append(last.new_empty(BLOCK, *last.shape[1:]))
                self.num_in_last = 0
                continue
            some, batch = batch[:room], batch[room:]
            last[self.num_in_last : self.num_in_last + len(some)] = some
            self.num_in_last += len(some)

    def whole(self) -> Tensor:
        """All rows as one block. The old blocks are freed one by one, so there is never a second copy of all rows."""
        if len(self.blocks) > 1 or self.num_in_last < len(self.blocks[0]):
            num = sum(map(len, self.blocks[:-1])) + self.num_in_last
            out = self.blocks[0].new_empty(num, *self.blocks[0].shape[1:])
            first = 0
            for number, block in enumerate(self.blocks):
                some = block[: num - first]
                out[first : first + len(some)] = some
                first += len(some)
                self.blocks[number] = block[:0].clone()
            self.blocks, self.num_in_last = [out], num
        return self.blocks[0]

    def sort(self, order: Tensor) -> None:
        if not torch.equal(order, torch.arange(len(order), device=order.device)):
            self.blocks = [self.whole()[order]]


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def is_first_rank() -> bool:
    """Whether this rank writes files and messages."""
    return not is_distributed() or dist.get_rank() == 0


def over_ranks(rows: Tensor) -> Tensor:
    """The rows of all ranks, whose numbers may differ."""
    return torch.cat(gather_all_tensors(rows)) if is_distributed() else rows


def sum_over_ranks(tensor: Tensor) -> Tensor:
    if is_distributed():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor
