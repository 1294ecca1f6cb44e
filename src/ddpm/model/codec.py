"""Codecs: conversion between images and the tensors that are diffused. Losses and samplers do not depend on them."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from ddpm.base.rng import Draws
from ddpm.base.types import Batch


class Codec(Protocol):
    """pixelwise: each value of x0 depends on one pixel only, so that known pixels can be pasted into it. bounded: x0
    lies in [-1, 1] and has the 256 levels of the images, so that it can be clipped and its bits can be counted.
    networks: frozen networks of another checkpoint, which move with the model and are not saved with it.
    """

    pixelwise: bool
    bounded: bool
    networks: tuple[nn.Module, ...]

    def encode(self, batch: Batch, draws: Draws | None = None) -> Tensor:
        """Encode the images of a batch, `[B, C, H, W]` in [-1, 1], to x0 `[B, *latent_shape]`.

        draws: random numbers of an encoder whose code is a distribution; None: take its mean.
        """
        ...

    def decode(self, x0: Tensor) -> Tensor:
        """Decode x0 to images `[B, C, H, W]`, approximately in [-1, 1]."""
        ...

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape of one x0 for images of shape (C, H, W)."""
        ...

    def shares_x0(self, other: "Codec") -> bool:
        """Whether an image has the same x0 in both codecs, so that one model can guide the other."""
        ...


class CodecOfPixels(ABC):
    """Both codecs whose x0 consists of pixels."""

    pixelwise: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    networks: ClassVar[tuple[nn.Module, ...]] = ()

    @abstractmethod
    def encode(self, batch: Batch, draws: Draws | None = None) -> Tensor: ...

    def decode(self, x0: Tensor) -> Tensor:
        return x0

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return image_shape

    def shares_x0(self, other: Codec) -> bool:
        return type(other) is type(self)


class PixelCodec(CodecOfPixels):
    """Diffusion on the pixels themselves."""

    def encode(self, batch: Batch, draws: Draws | None = None) -> Tensor:
        return batch["image"]


class BinaryCodec(CodecOfPixels):
    """Binary pixels, -1 or 1, for process=binomial. `encode` thresholds at the middle of the range.

    `decode` leaves values between -1 and 1, such as predicted means, as grey.
    """

    def encode(self, batch: Batch, draws: Draws | None = None) -> Tensor:
        image = batch["image"]
        return torch.where(image > 0, 1.0, -1.0).to(image.dtype)
