"""alpha_bar falls as a squared cosine: slow at both ends (Nichol and Dhariwal 2021, eq. 17)."""

import math

import torch

from ddpm.base import check
from ddpm.diffusion.schedule import NoiseSchedule, from_alpha_bar, times_in_unit_interval


def cosine(num_timesteps: int, offset: float, max_beta: float) -> NoiseSchedule:
    """offset: s of the paper, which keeps the first steps from being vanishingly small."""
    check.number("offset", offset, low=0)
    angle = (times_in_unit_interval(num_timesteps) + offset) / (1 + offset) * math.pi / 2
    curve = torch.cos(angle) ** 2
    return from_alpha_bar(curve / curve[0], max_beta)
