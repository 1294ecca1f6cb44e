"""What stands between pixels and the space that diffuses. The loss and the samplers never learn which it is."""

from typing import Protocol

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
