"""Nearest neighbours among features, in pieces: memory does not grow with the product of the two numbers of rows."""

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 2048


def squared_distances(rows: Tensor, among: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Pieces `[n, m]` of all squared distances, with the slices of `rows` and `among` they belong to.

    By the binomial formula about a common centre, so a distance is off by some 1e-6 of the features' own spread.
    """
    center = among.mean(0)
    for first in range(0, len(rows), CHUNK):
        here = slice(first, first + CHUNK)
        some = rows[here] - center
        for begin in range(0, len(among), CHUNK):
            there = slice(begin, begin + CHUNK)
            others = among[there] - center
            norms = some.square().sum(1)[:, None] + others.square().sum(1)
            yield here, there, torch.addmm(norms, some, others.T, alpha=-2).clamp_(min=0)


def nearest(rows: Tensor, among: Tensor, k: int, leave_out_self: bool = False) -> tuple[Tensor, Tensor]:
    """Distances and indices `[N, k]` of the k nearest of `among`, nearest first.

    leave_out_self: `rows` and `among` are the same, and no row is its own neighbour. Those found are measured again by
    differences, so that a copy has distance 0.
    """
    best = rows.new_full((len(rows), k), torch.inf)
    index = torch.zeros(len(rows), k, dtype=torch.int64, device=rows.device)
    for here, there, squares in squared_distances(rows, among):
        if leave_out_self:
            own = torch.arange(here.start, here.start + len(squares), device=rows.device)[:, None]
            squares[own == torch.arange(there.start, there.start + squares.shape[1], device=rows.device)] = torch.inf
        numbers = torch.arange(there.start, there.start + squares.shape[1], device=rows.device).expand(len(squares), -1)
        both = torch.cat([best[here], squares], 1)
        best[here], chosen = both.topk(k, largest=False)
        index[here] = torch.cat([index[here], numbers], 1).gather(1, chosen)
    exact = torch.cat(
        [(rows[i, None] - among[index[i]]).norm(dim=2) for i in torch.arange(len(rows)).split(CHUNK // k)]
    )
    exact, order = exact.sort(dim=1)
    return exact, index.gather(1, order)
