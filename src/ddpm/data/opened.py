"""An opened source of images: verified, in memory or streamed, with content hashes."""

from typing import Self

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from ddpm.data.decode import Decoder
from ddpm.data.images import Preparation
from ddpm.data.inspection import inspect_on_all_ranks
from ddpm.data.pixels import ImageData, MemoryPixels, StreamedPixels
from ddpm.data.problems import Problem, list_problems, usable
from ddpm.data.sources.base import Images, captions_of, sha256_of_parts


class OpenedData:
    """digests: uint8 `[N, 32]`, sha256 of the pixels of each image; None if images were not verified."""

    def __init__(self, images: Images, data: ImageData, digests: Tensor | None, preparation: Preparation):
        self.data = data
        self.class_names = tuple(images.class_names)
        self._digests = digests
        self._preparation = preparation
        self._fingerprint = "" if digests is not None else images.fingerprint()

    @classmethod
    def unseen(cls, images: Images, preparation: Preparation, num_workers: int) -> Self:
        """Streamed, without verification."""
        pixels = StreamedPixels(Decoder(images, preparation), num_workers)
        data = ImageData(pixels, images.labels, torch.arange(len(images)), captions_of(images))
        return cls(images, data, None, preparation)

    @classmethod
    def inspected(
        cls,
        images: Images,
        preparation: Preparation,
        num_workers: int,
        in_memory: bool,
        on_broken: str,
        known_problems: list[Problem],
    ) -> Self:
        """Decode every image once. Raises ValueError for images that cannot be used, unless on_broken is "skip"."""
        decoder = Decoder(images, preparation)
        found = inspect_on_all_ranks(decoder, num_workers, keep=in_memory)
        problems = list({problem.number: problem for problem in [*known_problems, *found.problems]}.values())
        indices = usable(len(images), problems, on_broken)
        if problems:
            rank_zero_warn(list_problems(f"skipped {len(problems)} of {len(images)} images", problems))
        pixels = StreamedPixels(decoder, num_workers) if found.pixels is None else MemoryPixels(found.pixels)
        return cls(images, ImageData(pixels, images.labels, indices, captions_of(images)), found.digests, preparation)

    def content_hash(self, indices: Tensor, with_captions: bool = True) -> str:
        """sha256 over shape, pixels, labels and captions of the images `indices`; the same in memory and streamed.

        Without verification (verify=false), it is a hash of names and sizes with the prefix "listing-".
        """
        labels = self.data.labels[indices].numpy().tobytes()
        if with_captions and self.data.captions is not None:
            labels += "\0".join(self.data.captions[i] for i in indices.tolist()).encode()
        shape = "x".join(map(str, self._preparation.shape))
        if self._digests is None:
            about = [self._fingerprint, self._preparation.described, indices.numpy().tobytes(), labels]
            return "listing-" + sha256_of_parts(about)
        return sha256_of_parts([shape, self._digests[indices].numpy().tobytes(), labels])
