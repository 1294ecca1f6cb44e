"""Guidance by the difference of conditional and unconditional predictions (Ho and Salimans 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Cond, Prediction, Time
from ddpm.diffusion.coefficients import per_sample
from ddpm.diffusion.condition import Condition
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.guidance.interval import interval, scale_at


@dataclass(frozen=True)
class ClassifierFree:
    """x0 = x0_without + scale * (x0_with - x0_without).

    The same in eps or v, which are affine in x0. scale: 1 is the conditional model, 0 the unconditional one, more is
    guidance; Ho and Salimans' w is scale - 1. rescale: phi in [0, 1], how far the deviation of x0 over its pixels is
    brought back to that of the conditional x0 (Lin et al. 2024, eqs. 15-16). interval: noise levels sigma / alpha
    between which there is guidance, null: all.
    """

    denoiser: Denoiser
    condition: Condition
    process: GaussianDiffusion
    scale: float
    rescale: float = 0.0
    interval: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check.number("scale", self.scale, low=0)
        check.number("rescale", self.rescale, low=0, high=1)
        interval(self.interval)
        if not self.condition.network_settings:
            raise ValueError("guidance=classifier_free needs a conditional model: train it with cond=class")
        if self.condition.dropout == 0 and self.scale != 1:
            raise ValueError(
                "guidance=classifier_free needs a model whose condition was dropped for some images: train it with "
                "cond.dropout=0.1 (this one has 0), or choose guidance=classifier or autoguidance"
            )

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        """Both branches in one call of the denoiser, with twice the batch; where the scale is 1 or 0 one branch."""
        scale = scale_at(self.scale, interval(self.interval), self.process.schedule, t)
        if isinstance(scale, float | int) and scale in (0, 1):
            return self.denoiser(x_t, t, cond if scale == 1 else self.condition.unconditional(cond))
        null_cond = self.condition.unconditional(cond)
        both = {name: torch.cat([conditional, null_cond[name]]) for name, conditional in cond.items()}
        times = t if isinstance(t, int) else torch.cat([t, t])
        prediction = self.denoiser(torch.cat([x_t, x_t]), times, both)
        assert prediction.guidance_gradient is None, (
            "a guidance gradient is of one branch: guidance by a classifier stands around this one"
        )
        conditional, unconditional = prediction.x0.chunk(2)
        x0 = torch.lerp(unconditional, conditional, per_sample(scale, unconditional))
        if self.rescale:
            x0 = rescale_guidance(x0, conditional, self.rescale)
        extra = None if prediction.extra is None else prediction.extra.chunk(2)[0]
        return Prediction(x0, extra)


def rescale_guidance(x0: Tensor, conditional: Tensor, phi: float) -> Tensor:
    """x0 whose deviation over all pixels of an image goes a share phi of the way to that of `conditional`."""
    dims = tuple(range(1, x0.ndim))
    deviation = x0.std(dim=dims, keepdim=True)
    ratio = torch.where(
        deviation > 0, conditional.std(dim=dims, keepdim=True) / deviation, 1.0
    )  # 0 / 0 in an even image
    return x0 * (phi * ratio + (1 - phi))
