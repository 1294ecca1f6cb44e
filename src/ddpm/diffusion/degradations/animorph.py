"""Animorphosis: images turn into those of another data set (Bansal et al. 2022, section 5 and appendix A.6)."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedules.base import NoiseSchedule, Schedule


@dataclass(frozen=True, eq=False)
class PicturesAsNoise:
    """Images uint8 `[N, C, H, W]` in place of noise; the sample's draws choose one of them."""

    images: Tensor
    white: ClassVar[bool] = False
    _copies: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, draws: Draws, stream: str, shape: tuple[int, ...]) -> Tensor:
        if self.images.shape[1:] != shape:
            check.fail("others", list(self.images.shape[1:]), f"images of the model's shape, {list(shape)}")
        numbers = draws.integers(stream, len(self.images))
        if numbers.device not in self._copies:
            self._copies[numbers.device] = self.images.to(numbers.device)
        return self._copies[numbers.device][numbers].float().div_(127.5).sub_(1)


def animorph(schedule: Schedule, mixing: NoiseSchedule, others: Tensor) -> GaussianDiffusion:
    """x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) z, where z is an image of `others`, uint8 `[N, C, H, W]`.

    This is Gaussian diffusion with images as noise, so z is inferred from x_t and the predicted x0. schedule: the
    times 0..T; mixing: the alpha_bar of as many times.
    """
    if mixing.T != schedule.T:
        check.fail("mixing.num_timesteps", mixing.T, f"schedule.num_timesteps, {schedule.T}")
    return GaussianDiffusion(mixing, PicturesAsNoise(others))
