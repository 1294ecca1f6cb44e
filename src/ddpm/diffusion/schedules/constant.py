"""The same beta at every step ("const" in the code of Ho et al. 2020)."""

import torch

from ddpm.diffusion.schedule import NoiseSchedule, checked_timesteps, from_betas, rescale_beta


def constant(num_timesteps: int, beta: float, rescale: bool) -> NoiseSchedule:
    """rescale: multiply beta by 1000 / num_timesteps, so that any T ends at about the same noise."""
    T = checked_timesteps(num_timesteps)
    return from_betas(torch.full((T,), rescale_beta(beta, T, rescale, "beta"), dtype=torch.float64))
