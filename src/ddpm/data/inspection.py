"""Decode every image once: content hashes, and the images that cannot be used."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset

from ddpm.data.decode import Decoder
from ddpm.data.problems import Problem
from ddpm.data.workers import BatchReader


class Inspections(Dataset):
    """As DecodedBatches, with the sha256 of each image. keep: whether to return the pixels."""

    def __init__(self, decoder: Decoder, keep: bool):
        self.decoder = decoder
        self.keep = keep

    def __getitems__(self, indices: list[int]) -> tuple[Tensor | None, Tensor, list[Problem]]:
        pixels, problems = self.decoder.decoded(indices)
        digests = bytearray().join(sha256(image).digest() for image in pixels.numpy())
        return (pixels if self.keep else None), torch.frombuffer(digests, dtype=torch.uint8).view(-1, 32), problems


@dataclass(frozen=True)
class Inspection:
    """The result of inspecting N images. digests: uint8 `[N, 32]`, sha256 of the uint8 pixels. pixels: uint8
    `[N, C, H, W]`, or None if they were not kept. Both are undefined for images with a problem."""

    digests: Tensor
    problems: list[Problem]
    pixels: Tensor | None


def inspect(decoder: Decoder, indices: Tensor, num_workers: int, keep: bool, batch_size: int = 128) -> Inspection:
    """Decode each of the images `indices` once."""
    pixels = torch.empty((len(indices), *decoder.preparation.shape), dtype=torch.uint8) if keep else None
    digests = torch.empty((len(indices), 32), dtype=torch.uint8)
    problems: list[Problem] = []
    done = 0
    reader = BatchReader(Inspections(decoder, keep), num_workers)
    for some_pixels, some_digests, some_problems in reader.read(list(indices.split(batch_size))):
        rows = slice(done, done + len(some_digests))
        digests[rows] = some_digests
        if pixels is not None:
            pixels[rows] = some_pixels
        problems += some_problems
        done = rows.stop
    return Inspection(digests, problems, pixels)


def inspect_on_all_ranks(decoder: Decoder, num_workers: int, keep: bool) -> Inspection:
    """Inspect all images. If they are kept in memory, each rank decodes all; else ranks share work and results."""
    everything = torch.arange(len(decoder.images))
    if keep or not (dist.is_available() and dist.is_initialized()):
        return inspect(decoder, everything, num_workers, keep)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    mine = inspect(decoder, everything[rank::world_size], num_workers, keep)
    parts: list[Any] = [None] * world_size
    dist.all_gather_object(parts, (mine.digests.numpy(), mine.problems))
    digests = torch.empty((len(everything), 32), dtype=torch.uint8)
    for other, (some, _) in enumerate(parts):
        digests[other::world_size] = torch.from_numpy(some)
    return Inspection(digests, [problem for _, problems in parts for problem in problems], None)
