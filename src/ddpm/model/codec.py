"""Codecs: conversion between images and the tensors that are diffused. Losses and samplers do not depend on them."""

from typing import Protocol

import torch
from torch import Tensor


class Codec(Protocol):
    def encode(self, image: Tensor) -> Tensor:
        """Encode images `[B, C, H, W]` in [-1, 1] to x0 `[B, *latent_shape]`."""
        ...

    def decode(self, x0: Tensor) -> Tensor:
        """Decode x0 to images `[B, C, H, W]`, approximately in [-1, 1]."""
        ...

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape of one x0 for images of shape (C, H, W)."""
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
    """Binary pixels, -1 or 1, for process=binomial. `encode` thresholds at the middle of the range.

    `decode` leaves values between -1 and 1, such as predicted means, as grey.
    """

    def encode(self, image: Tensor) -> Tensor:
        return torch.where(image > 0, 1.0, -1.0).to(image.dtype)

    def decode(self, x0: Tensor) -> Tensor:
        return x0

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return image_shape
