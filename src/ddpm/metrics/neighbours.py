"""Nearest neighbours among features, in chunks: memory does not grow with the product of the numbers of rows."""

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 2048


def squared_distances(rows: Tensor, among: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yields chunks `[n, m]` of all squared distances, with their slices of `rows` and `among`.

    They are |x|^2 + |y|^2 - 2 x.y about a common centre, with errors of about 1e-6 of the spread of the features.
    """
    center = among.mean(0)
    for first in range(0, len(rows), CHUNK):
        rows_slice = slice(first, first + CHUNK)
        some = rows[rows_slice] - center
        for begin in range(0, len(among), CHUNK):
            others_slice = slice(begin, begin + CHUNK)
            others = among[others_slice] - center
            norms = some.square().sum(1)[:, None] + others.square().sum(1)
            yield rows_slice, others_slice, torch.addmm(norms, some, others.T, alpha=-2).clamp_(min=0)


def exact_squares(rows: Tensor, others: Tensor) -> Tensor:
    """Float32 `[n]`: squared distances of pairs `[n, d]`. Pairs that are equal up to their order have equal results."""
    parts = zip(rows.split(CHUNK), others.split(CHUNK), strict=True)
    return torch.cat([(a.double() - b.double()).square().sum(1).float() for a, b in parts])


def k_nearest(rows: Tensor, among: Tensor, k: int, leave_out_self: bool = False) -> tuple[Tensor, Tensor]:
    """Distances and indices `[N, k]` of the k nearest of `among`, nearest first.

    leave_out_self: `rows` and `among` are the same, and no row is its own neighbour. The distances of the neighbours
    are computed again from differences, so that a copy has distance 0.
    """
    _, near = k_nearest_squares(rows, among, k, leave_out_self)
    exact = torch.cat([(rows[i, None] - among[near[i]]).norm(dim=2) for i in torch.arange(len(rows)).split(CHUNK // k)])
    exact, order = exact.sort(dim=1)
    return exact, near.gather(1, order)


def k_nearest_squares(rows: Tensor, among: Tensor, k: int, leave_out_self: bool) -> tuple[Tensor, Tensor]:
    """As `k_nearest`, with the rounded squares of `squared_distances`."""
    best = rows.new_full((len(rows), k), torch.inf)
    index = torch.zeros(len(rows), k, dtype=torch.int64, device=rows.device)
    for rows_slice, others_slice, squares in squared_distances(rows, among):
        numbers = torch.arange(others_slice.start, others_slice.start + squares.shape[1], device=rows.device)
        if leave_out_self:
            own = torch.arange(rows_slice.start, rows_slice.start + len(squares), device=rows.device)[:, None]
            squares[own == numbers] = torch.inf
        both = torch.cat([best[rows_slice], squares], 1)
        best[rows_slice], chosen = both.topk(k, largest=False)
        index[rows_slice] = torch.cat([index[rows_slice], numbers.expand(len(squares), -1)], 1).gather(1, chosen)
    return best, index
