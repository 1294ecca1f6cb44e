"""Decode images to uint8 tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ddpm.data.images import Misfit, Preparation, UnusableImage
from ddpm.data.label_images import LabelledPreparation
from ddpm.data.problems import Problem
from ddpm.data.sources.base import Images


@dataclass(frozen=True)
class Decoder:
    images: Images
    preparation: Preparation | LabelledPreparation
    see: Callable[[Any], Any] | None = None  # what is done with an opened image before it is prepared

    def one(self, index: int) -> np.ndarray | Problem:
        """The image, uint8 `[C, H, W]`, or the problem. Image libraries raise many kinds of errors for broken files."""
        try:
            image = self.images.image(index)
            return self.preparation(image if self.see is None else self.see(image))
        except Misfit as error:
            return Problem(index, self.images.name(index), error.what, error.remedy, error.remedy_if_all)
        except Exception as error:
            kind = "" if isinstance(error, UnusableImage) else f"{type(error).__name__}: "
            return Problem(index, self.images.name(index), f"{kind}{error}")

    def decoded(self, indices: list[int]) -> tuple[Tensor, list[Problem]]:
        """The images, uint8 `[B, C, H, W]`, with zeros for images that have a problem, and the problems."""
        pixels = np.zeros((len(indices), *self.preparation.shape), dtype=np.uint8)
        problems = []
        for row, index in enumerate(indices):
            result = self.one(index)
            if isinstance(result, Problem):
                problems.append(result)
            else:
                pixels[row] = result
        return torch.from_numpy(pixels), problems


class DecodedBatches(Dataset):
    """The decoder as a data set for torch's DataLoader, with one call per batch."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, list[Problem]]:
        return self.decoder.decoded(indices)
