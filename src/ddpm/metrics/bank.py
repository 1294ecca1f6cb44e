"""Where features are gathered over batches and ranks, until they are the features of all images of a kind."""

from collections.abc import Collection, Mapping
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from ddpm.metrics.moments import Moments
from ddpm.metrics.score import FeatureSet


class FeatureBank:
    """Images of one kind, each given once, in any order and any share of the ranks.

    dims: width of each layer. moments: the layers whose sums are kept, in float64, which ranks add up exactly. rows:
    the layers whose features are kept, image by image: 4 bytes a number on this device.
    """

    def __init__(self, kind: str, dims: Mapping[str, int], moments: Collection[str], rows: Collection[str]) -> None:
        self.kind, self.dims = kind, dict(dims)
        self.with_moments, self.with_rows = tuple(moments), tuple(rows)
        self.device = torch.device("cpu")
        self.clear()

    def clear(self) -> None:
        """Forget all images. Batches of none stay: a rank that has had no image still has shapes to gather."""
        none = torch.zeros(0, dtype=torch.int64, device=self.device)
        self.ids, self.labels = [none], [none]
        exact = {"dtype": torch.float64, "device": self.device}
        self.sums = {layer: torch.zeros(self.dims[layer], **exact) for layer in self.with_moments}
        self.outer = {layer: torch.zeros(self.dims[layer], self.dims[layer], **exact) for layer in self.with_moments}
        self.rows = {layer: [torch.zeros(0, self.dims[layer], device=self.device)] for layer in self.with_rows}

    def to(self, device: torch.device | str) -> Self:
        self.device = torch.device(device)
        self.ids, self.labels = ([batch.to(device) for batch in some] for some in (self.ids, self.labels))
        self.sums, self.outer = ({k: v.to(device) for k, v in sums.items()} for sums in (self.sums, self.outer))
        self.rows = {layer: [batch.to(device) for batch in batches] for layer, batches in self.rows.items()}
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
            self.rows[layer].append(features[layer].float())

    def sets(self) -> dict[str, FeatureSet]:
        """The set of each layer, over all ranks; all of them must call it. ValueError if an image came twice."""
        own, order = torch.cat(self.ids).sort()
        self.ids, self.labels = [own], [torch.cat(self.labels)[order]]
        for layer, batches in self.rows.items():
            self.rows[layer] = [in_order(batches, order)]
        ids, order = over_ranks(own).sort()
        self._refuse_repeats(ids)
        labels = over_ranks(self.labels[0])[order]
        sets = {}
        for layer in self.dims:
            moments = rows = None
            if layer in self.with_moments:
                moments = Moments.from_sums(len(ids), summed(self.sums[layer]), summed(self.outer[layer]))
            if layer in self.with_rows:
                rows = self.rows[layer][0]
                rows = over_ranks(rows)[order] if distributed() else rows
            sets[layer] = FeatureSet(len(ids), moments, rows, ids, labels)
        return sets

    def _refuse_repeats(self, ids: Tensor) -> None:
        twice = ids[1:][ids[1:] == ids[:-1]].unique()
        if len(twice):
            raise ValueError(
                f"{len(twice)} {self.kind} images were given more than once, e.g. number {int(twice[0])}: a sampler "
                "that pads the ranks to equal length repeats images (DistributedSampler does); shard by number instead"
            )


def in_order(batches: list[Tensor], order: Tensor) -> Tensor:
    """All rows in `order`. The batches are let go one by one, so that there is never a second copy of all."""
    if len(batches) == 1 and torch.equal(order, torch.arange(len(order), device=order.device)):
        return batches[0]
    out = torch.empty(len(order), batches[0].shape[1], device=order.device)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    first = 0
    for number, batch in enumerate(batches):
        out[place[first : first + len(batch)]] = batch
        first += len(batch)
        batches[number] = out[:0]
    return out


def distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def is_first() -> bool:
    """Whether this rank is the one that writes."""
    return not distributed() or dist.get_rank() == 0


def over_ranks(rows: Tensor) -> Tensor:
    """The rows of all ranks, of which each may have another number."""
    return torch.cat(gather_all_tensors(rows)) if distributed() else rows


def summed(tensor: Tensor) -> Tensor:
    if distributed():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor
