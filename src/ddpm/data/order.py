"""The order of images and its distribution among ranks, as pure functions, so that a resumed run sees the same images.

A global batch is a contiguous part of the order of an epoch. It is split into accumulation x world_size micro-batches
of equal size, of which rank r takes every world_size-th. The mean over micro-batches is the mean over the global batch.
"""

import torch
from torch import Tensor

from ddpm.base.rng import Rng


def keyed_order(rng: Rng, stream: str, step: int, num: int) -> Tensor:
    """int64 `[num]`, a permutation of 0..num-1 by sorting random keys of 63 bits."""
    words = rng.at(step, torch.arange(num)).bits(stream, 2)
    return torch.argsort((words[:, 0] << 31) | (words[:, 1] >> 1), stable=True)


def choose_subset(num: int, num_chosen: int) -> Tensor:
    """int64 `[num_chosen]`, ascending, from 0..num-1: the same numbers in every run, independent of its seed."""
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
    """int64 `[size]`, the positions of a rank's micro-batch `number` in the order of the epoch, from 0."""
    first = (number * world_size + rank) * size
    return torch.arange(first, first + size)


def split_among_ranks(first: int, last: int, rank: int, world_size: int, size: int) -> list[Tensor]:
    """A rank's part of first..last-1 in batches of up to `size`. Every number occurs once on one rank.

    Ranks can differ by one image, and so by one batch. The k-th batches of all ranks together are contiguous.
    """
    return list(torch.arange(first + rank, last, world_size).split(size)) if first + rank < last else []
