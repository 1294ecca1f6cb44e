"""What stands between pixels and the space that diffuses. The loss and the samplers never learn which it is."""

from typing import Protocol

import torch
from torch import Tensor


class Codec(Protocol):
    def encode(self, image: Tensor) -> Tensor:
        """x0 for images `[B, C, H, W]` in [-1, 1]."""
        ...

    def decode(self, x0: Tensor) -> Tensor:
        """Images `[B, C, H, W]`, about in [-1, 1]."""
        ...

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of one x0 for images `[C, H, W]`."""
        ...


class PixelCodec:
    """Diffusion on the pixels themselves."""

    def encode(self, image: Tensor) -> Tensor:
        return image

    def decode(self, x0: Tensor) -> Tensor:
        return x0

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return image_shape


class BinaryCodec:
    """Pixels that are black or white, -1 or 1, for process=binomial: in the image the upper half of 0..255 is white.

    What is predicted on the way to a sample, the mean of such a pixel, is shown as grey.
    """

    def encode(self, image: Tensor) -> Tensor:
        return torch.where(image > 0, 1.0, -1.0).to(image.dtype)

    def decode(self, x0: Tensor) -> Tensor:
        return x0

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return image_shape
