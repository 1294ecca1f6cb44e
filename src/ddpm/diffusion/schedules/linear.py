"""Betas that grow evenly: the schedule of Ho et al. 2020, section 4 (1e-4 to 0.02 in 1,000 steps)."""

import torch

from ddpm.diffusion.schedule import NoiseSchedule, checked_timesteps, from_betas, rescale_beta


def linear(num_timesteps: int, beta_start: float, beta_end: float, rescale: bool) -> NoiseSchedule:
    """rescale: multiply both betas by 1000 / num_timesteps, so that any T ends at about the same noise."""
    T = checked_timesteps(num_timesteps)
    start = rescale_beta(beta_start, T, rescale, "beta_start")
    end = rescale_beta(beta_end, T, rescale, "beta_end")
    return from_betas(torch.linspace(start, end, T, dtype=torch.float64))
