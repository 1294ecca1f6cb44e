"""Betas that rise evenly over the first part of the steps and then stay: "warmup10" and "warmup50" of Ho's code."""

import torch

from ddpm.base import check
from ddpm.diffusion.schedule import NoiseSchedule, checked_timesteps, from_betas, rescale_beta


def warmup(num_timesteps: int, beta_start: float, beta_end: float, fraction: float, rescale: bool) -> NoiseSchedule:
    """fraction: the share of the steps, in [0, 1], over which beta rises from beta_start to beta_end."""
    T = checked_timesteps(num_timesteps)
    start = rescale_beta(beta_start, T, rescale, "beta_start")
    end = rescale_beta(beta_end, T, rescale, "beta_end")
    rise = int(T * check.number("fraction", fraction, low=0, high=1))
    betas = torch.full((T,), end, dtype=torch.float64)
    betas[:rise] = torch.linspace(start, end, rise, dtype=torch.float64)
    return from_betas(betas)
