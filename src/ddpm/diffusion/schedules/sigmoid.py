"""alpha_bar falls as a logistic curve, rescaled to run from 1 to 0 (Jabri et al. 2022, figure 8)."""

import torch

from ddpm.base import check
from ddpm.diffusion.schedule import NoiseSchedule, from_alpha_bar, times_in_unit_interval


def sigmoid(num_timesteps: int, start: float, end: float, temperature: float, max_beta: float) -> NoiseSchedule:
    """start, end: the part of the logistic curve that is used; temperature: its stretching."""
    check.number("start", start)
    if check.number("end", end) <= start:
        check.fail("end", end, f"greater than start ({start})")
    check.positive_number("temperature", temperature)
    place = start + (end - start) * times_in_unit_interval(num_timesteps)
    curve = torch.sigmoid(-place / temperature)
    return from_alpha_bar((curve - curve[-1]) / (curve[0] - curve[-1]), max_beta)
