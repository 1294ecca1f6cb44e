"""A data set for the loaders: numbered uint8 images, in memory or decoded on demand, and labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ddpm.data.decode import DecodedBatches, Decoder
from ddpm.data.latents import CachedLatents
from ddpm.data.workers import BatchReader


def to_floats(pixels: Tensor) -> Tensor:
    """uint8 to float32, where 0 becomes -1 and 255 becomes 1."""
    return pixels.to(torch.float32).div_(127.5).sub_(1)


def mirror(pixels: Tensor, mirrored: Tensor) -> Tensor:
    """`pixels` `[B, C, H, W]` with left and right exchanged in the images where `mirrored`, bool `[B]`, is true."""
    both = torch.cat([pixels, pixels.flip(-1)])  # five times as fast as torch.where on uint8
    return both.index_select(0, torch.arange(len(pixels)) + len(pixels) * mirrored)


class Pixels:
    """What `reader` reads are uint8 images `[B, C, H, W]`. What `full_reader` reads has all fields of a batch."""

    def full_reader(self, persistent: bool) -> "Reader":
        return self.reader(persistent)

    def fields(self, stored: Tensor, mirrored: Tensor | None = None) -> dict[str, Tensor]:
        """image: float32 `[B, C, H, W]` in [-1, 1]. stored: as read by `full_reader`. mirrored: bool `[B]`."""
        return {"image": to_floats(stored if mirrored is None else mirror(stored, mirrored))}


class Reader(Protocol):
    def read(self, plan: list[Tensor]) -> Iterator[Tensor]:
        """For each int64 `[B]` of image numbers in `plan`, uint8 `[B, C, H, W]`."""
        ...


@dataclass(frozen=True)
class LabelledPixels(Pixels):
    """Images with labels. stored: its last channel is the label of each pixel, the field "label_map" of a batch."""

    stored: "MemoryPixels | StreamedPixels"

    def full_reader(self, persistent: bool) -> Reader:
        return self.stored.reader(persistent)

    def reader(self, persistent: bool) -> Reader:
        return WithoutLabels(self.full_reader(persistent))

    def fields(self, stored: Tensor, mirrored: Tensor | None = None) -> dict[str, Tensor]:
        both = stored if mirrored is None else mirror(stored, mirrored)
        return {"image": to_floats(both[:, :-1]), "label_map": both[:, -1]}


@dataclass(frozen=True)
class WithoutLabels:
    full: Reader

    def read(self, plan: list[Tensor]) -> Iterator[Tensor]:
        return (stored[:, :-1] for stored in self.full.read(plan))


@dataclass(frozen=True)
class MemoryPixels(Pixels):
    """images: uint8 `[N, C, H, W]`."""

    images: Tensor

    def reader(self, persistent: bool) -> "MemoryPixels":
        return self

    def read(self, plan: list[Tensor]) -> Iterator[Tensor]:
        """For each int64 `[B]` of image numbers in `plan`, uint8 `[B, C, H, W]`."""
        return (self.images.index_select(0, indices) for indices in plan)


@dataclass(frozen=True)
class StreamedPixels(Pixels):
    decoder: Decoder
    num_workers: int

    def reader(self, persistent: bool) -> "StreamReader":
        """A new reader. persistent: keep its worker processes between reads."""
        return StreamReader(BatchReader(DecodedBatches(self.decoder), self.num_workers, persistent))


@dataclass(frozen=True)
class StreamReader:
    batches: BatchReader

    def read(self, plan: list[Tensor]) -> Iterator[Tensor]:
        for pixels, problems in self.batches.read(plan):
            if problems:
                raise ValueError(
                    f"{problems[0].name}: {problems[0].reason}\nThis image was read during the run. If it has not "
                    "changed since the start, data.verify=true finds all such images there, and says what helps"
                )
            yield pixels


@dataclass(frozen=True)
class ImageData:
    """Some images of a source. indices: int64 `[n]`, their numbers in the source; labels: int64 `[N]`, of all images of
    the source. captions: of all images, "" for none; None if the source has none. of_texts: the conditions of texts by
    name, if a model is conditioned on captions."""

    pixels: MemoryPixels | StreamedPixels | LabelledPixels | CachedLatents
    labels: Tensor
    indices: Tensor
    captions: Sequence[str] | None = None
    of_texts: Callable[[Sequence[str]], Mapping[str, Tensor]] | None = None

    def conditions(self, indices: Tensor) -> dict[str, Tensor]:
        """Labels, and conditions of captions, of the images with these numbers in the source."""
        label = {"label": self.labels[indices]}
        if self.captions is None or self.of_texts is None:
            return label
        return {**label, **self.of_texts([self.captions[i] for i in indices.tolist()])}

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, plan: list[Tensor]) -> Iterator[Tensor]:
        """For each int64 `[B]` of places in `indices` in `plan`, uint8 `[B, C, H, W]`."""
        return self.pixels.reader(persistent=False).read([self.indices[places] for places in plan])

    def batches(self, size: int) -> Iterator[Tensor]:
        """All images in order, float32 `[B, C, H, W]` in [-1, 1], with B up to `size`."""
        return map(to_floats, self.read(list(torch.arange(len(self)).split(size))))

    def only(self, rows: Tensor) -> "ImageData":
        """rows: int64, places in `indices`."""
        return replace(self, indices=self.indices[rows])
