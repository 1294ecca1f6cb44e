"""Betas that rise along a logistic curve from -6 to 6 (code of GeoDiff, Xu et al. 2022; "sigmoid" in diffusers).

Not schedule=sigmoid, where alpha_bar is the logistic curve.
"""

import torch

from ddpm.diffusion.schedule import NoiseSchedule, checked_timesteps, from_betas, rescale_beta


def sigmoid_beta(num_timesteps: int, beta_start: float, beta_end: float, rescale: bool) -> NoiseSchedule:
    """beta_start, beta_end: the limits of the curve, of which sigmoid(-6) = 0.25% is cut off at either end.

    rescale: multiply both betas by 1000 / num_timesteps, so that any T ends at about the same noise.
    """
    T = checked_timesteps(num_timesteps)
    start = rescale_beta(beta_start, T, rescale, "beta_start")
    end = rescale_beta(beta_end, T, rescale, "beta_end")
    return from_betas(start + (end - start) * torch.sigmoid(torch.linspace(-6, 6, T, dtype=torch.float64)))
