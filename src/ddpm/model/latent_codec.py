"""Latent diffusion (Rombach et al. 2022): x0 is the code of a frozen first stage, shifted and scaled."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Batch
from ddpm.model.codec import Codec

HASH = "first_stage_sha256"
"""The fitted value by which a model knows the weights of its first stage again."""


class FirstStage(Protocol):
    """What a codec needs of an autoencoder. num_moments: channels of `moments`, those of z if z is not random.
    factor: side of an image over that of its latent."""

    z_channels: int
    num_moments: int
    factor: int

    def moments(self, images: Tensor) -> Tensor:
        """All numbers of the distribution of z given images `[B, C, H, W]`, `[B, num_moments, h, w]`."""
        ...

    def mean(self, moments: Tensor) -> Tensor: ...

    def std(self, moments: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor:
        """Images `[B, C, H, W]`, approximately in [-1, 1]."""
        ...


class LatentCodec:
    """x0 = scale (z - shift), with z drawn from the first stage's distribution or, with sample=False, its mean.

    scale: a number; None: 1 / the standard deviation of z - shift over the training split, which is found before the
    training starts (Rombach et al. 2022, section 3.3 and appendix G, take it from the first batch: "first_batch").
    shift: subtract the mean of each channel, found likewise. fitted: the values found, "scale" and, with shift,
    "shift", a list of z_channels numbers. Until they are known, `encode` and `decode` raise ValueError.
    """

    pixelwise: ClassVar[bool] = False
    bounded: ClassVar[bool] = False

    def __init__(
        self,
        network: nn.Module,
        sample: bool = True,
        scale: float | str | None = None,
        shift: bool = False,
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = network.requires_grad_(False).eval()
        self.networks = (self.network,)
        self.sample = check.boolean("sample", sample) and network.num_moments > network.z_channels  # else std is 0
        self.shifts = check.boolean("shift", shift)
        if isinstance(scale, str):
            check.one_of("scale", scale, ("first_batch",))
            if shift:
                check.fail("shift", shift, "false with scale=first_batch: the mean is found over the training split")
        elif scale is not None:
            check.positive_number("scale", scale)
        self.chosen_scale = scale
        self.sha256 = (fitted or {}).get(HASH)
        self.fit(fitted or {})

    def fit(self, fitted: Mapping[str, Any]) -> None:
        """Set the values found; a chosen number precedes."""
        chosen, shift = self.chosen_scale, fitted.get("shift")
        self.scale = chosen if isinstance(chosen, int | float) else fitted.get("scale")
        self.shift = torch.tensor(shift if shift else [0.0] * self.network.z_channels)
        self.is_fitted = self.scale is not None and (shift is not None or not self.shifts)

    def encode(self, batch: Batch, draws: Draws | None = None) -> Tensor:
        """batch: with moments of the first stage as "latent", or else with images."""
        moments = batch["latent"] if "latent" in batch else self.moments(batch["image"])
        z, std = self.distribution(moments)
        if draws is not None and self.sample:
            z = z + std * draws.normal("latent", tuple(z.shape[1:])).to(z.dtype)
        return self._shifted(z, -1) * self._scale

    def distribution(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z, `[B, z_channels, h, w]` each; the latter 0 with sample=False."""
        mean = self.network.mean(moments)
        return mean, self.network.std(moments) if self.sample else torch.zeros_like(mean)

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        return self.network.moments(images)

    def decode(self, x0: Tensor) -> Tensor:
        return self.network.decode(self._shifted(x0 / self._scale, 1))

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        _, height, width = image_shape
        factor = self.network.factor
        if height % factor or width % factor:
            check.fail(
                "the image size", [height, width], f"a multiple of {factor}, by which the first stage divides it"
            )
        return self.network.z_channels, height // factor, width // factor

    def shares_x0(self, other: Codec) -> bool:
        """Scales may differ by rounding, as those of latents that were encoded once do."""
        if not isinstance(other, LatentCodec) or other.sha256 != self.sha256:
            return False
        if not (self.is_fitted and other.is_fitted):
            return True
        same_shift = torch.allclose(self.shift.cpu() * self._scale, other.shift.cpu() * other._scale, atol=0.01)
        return same_shift and math.isclose(self._scale, other._scale, rel_tol=0.01)

    @property
    def _scale(self) -> float:
        if not self.is_fitted:
            raise ValueError("the scale of the latents is not known yet; it is found when the training starts")
        return self.scale

    def _shifted(self, z: Tensor, sign: int) -> Tensor:
        if not self.shifts:
            return z
        self.shift = self.shift.to(z.device)  # moved once, since each copy from the host makes it wait
        return z + sign * self.shift.to(z.dtype)[:, None, None]
