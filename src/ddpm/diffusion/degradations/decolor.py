"""Colours that drain away: colourisation (Bansal et al. 2022, appendix A.5)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.base.types import Time
from ddpm.diffusion.degradations.base import Degradation, fraction_of_T


@dataclass(frozen=True, kw_only=True, eq=False)
class Decolor(Degradation):
    """x_t = x0 + t / T (mean of the channels - x0), grey at T. Linear in time."""

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        if x0.shape[1] < 2:
            raise ValueError("process=decolor takes colours away, and these images have one channel: choose data of 3")
        grey = x0.mean(1, keepdim=True).expand_as(x0)
        return torch.lerp(x0, grey, fraction_of_T(t, self.T, x0))
