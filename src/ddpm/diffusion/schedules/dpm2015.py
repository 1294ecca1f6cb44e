"""The betas in the code of Sohl-Dickstein et al. 2015, `generate_beta_arr`: 1 / linspace(T, 2, T), raised to a floor.

The paper's 1 / (T - t + 1) (schedule=jsd) removes all signal; here about 1 / T of its variance is left. The floor of
the first step is the least variance that their model can have. Their perturbation by temporal bumps is always 0.
"""

import torch

from ddpm.base import check
from ddpm.diffusion.schedule import NoiseSchedule, checked_timesteps, from_betas

GAP = 1e-5
"""How far their betas stay below 1."""


def dpm2015(num_timesteps: int, min_beta: float, step1_beta: float) -> NoiseSchedule:
    """min_beta: the floor of every step; step1_beta: what the first step's floor has above it."""
    T = checked_timesteps(num_timesteps)
    floor = torch.full((T,), check.number("min_beta", min_beta, low=0, high=0.5), dtype=torch.float64)
    floor[0] += check.number("step1_beta", step1_beta, low=0, high=0.4)
    baseline = 1 / torch.linspace(T, 2, T, dtype=torch.float64)
    return from_betas(floor + baseline * (1 - floor - GAP))
