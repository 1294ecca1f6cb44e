"""Who sees which image when: pure functions of numbers, so that a resumed or a differently spread run sees the same.

A global batch is a stretch of the epoch's order. It is cut into accumulation x world_size micro-batches, of which rank
r takes every world_size-th; a mean over micro-batches of one size is then the mean over the global batch.
"""

import torch
from torch import Tensor

from ddpm.base.rng import Rng


def keyed_order(rng: Rng, stream: str, step: int, num: int) -> Tensor:
    """int64 `[num]`, a permutation of 0..num-1 by sorting random keys of 63 bits."""
    words = rng.at(step, torch.arange(num)).bits(stream, 2)
    return torch.argsort((words[:, 0] << 31) | (words[:, 1] >> 1), stable=True)


def choose_subset(num: int, num_chosen: int) -> Tensor:
    """int64 `[num_chosen]`, ascending, from 0..num-1: the same ones in every run, whatever its seed."""
    return keyed_order(Rng(0, "data"), "chosen", 0, num)[:num_chosen].sort().values


def micro_batch_size(batch_size: int, world_size: int, accumulation: int) -> int:
    shares = world_size * accumulation
    if batch_size % shares:
        lower = batch_size // shares * shares
        remedy = f"use {lower} or {lower + shares}" if lower else f"use {shares}"
        raise ValueError(
            f"data.batch_size counts the images of one optimizer step on all devices and must be divisible by "
            f"devices x accumulation = {world_size} x {accumulation} = {shares}, got {batch_size}; {remedy}"
        )
    return batch_size // shares


def micro_batch(number: int, size: int, rank: int, world_size: int) -> Tensor:
    """int64 `[size]`, the positions in the epoch's order of a rank's micro-batch `number`, 0 the epoch's first."""
    first = (number * world_size + rank) * size
    return torch.arange(first, first + size)


def split_among_ranks(first: int, last: int, rank: int, world_size: int, size: int) -> list[Tensor]:
    """A rank's part of first..last-1 in batches of up to `size`: every number once, none repeated to fill up.

    Ranks may differ by one image and so by one batch. The k-th batches of all ranks cover a stretch without gaps.
    """
    return list(torch.arange(first + rank, last, world_size).split(size)) if first + rank < last else []
