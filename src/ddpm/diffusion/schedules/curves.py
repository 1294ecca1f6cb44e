"""Schedules defined by a curve of alpha_bar over time."""

import math

import torch

from ddpm.base import check
from ddpm.diffusion.schedules.base import NoiseSchedule, from_alpha_bar, times_in_unit_interval


def cosine(num_timesteps: int, offset: float, max_beta: float) -> NoiseSchedule:
    """A squared cosine, which falls slowly at both ends (Nichol and Dhariwal 2021, eq. 17).

    offset: s in the paper, which prevents vanishing betas near t = 0.
    """
    check.number("offset", offset, low=0)
    angle = (times_in_unit_interval(num_timesteps) + offset) / (1 + offset) * math.pi / 2
    curve = torch.cos(angle) ** 2
    return from_alpha_bar(curve / curve[0], max_beta)


def sigmoid(num_timesteps: int, start: float, end: float, temperature: float, max_beta: float) -> NoiseSchedule:
    """A logistic curve, rescaled to run from 1 to 0 (Jabri et al. 2022, figure 8).

    start, end: the interval of the logistic curve that is used; temperature: divisor of its argument.
    """
    check.number("start", start)
    if check.number("end", end) <= start:
        check.fail("end", end, f"greater than start ({start})")
    check.positive_number("temperature", temperature)
    place = start + (end - start) * times_in_unit_interval(num_timesteps)
    curve = torch.sigmoid(-place / temperature)
    return from_alpha_bar((curve - curve[-1]) / (curve[0] - curve[-1]), max_beta)


def jsd(num_timesteps: int) -> NoiseSchedule:
    """alpha_bar = 1 - t / T, which ends without signal: all steps remove the same amount of signal variance.

    beta_t = 1 / (T - t + 1) of Sohl-Dickstein et al. 2015, section 2.4.1; "jsd" in the code of Ho et al. 2020.
    """
    return NoiseSchedule(1 - times_in_unit_interval(num_timesteps))


def vp(num_timesteps: int, beta_min: float, beta_max: float, t_min: float) -> NoiseSchedule:
    """The variance-preserving SDE at evenly spaced times, so that any number of steps ends at the same noise level.

    Song et al. 2021, "Score-Based Generative Modeling through SDEs", eq. 33; with few steps in the code of denoising
    diffusion GANs (Xiao et al. 2022). beta(t) increases linearly from beta_min to beta_max, which are rates per unit of
    time, not variances of steps. t_min: the time of step 0. The noise before t_min (variance 2e-4 for 1e-3) is left
    out, as in the posteriors of the GANs' code. When that code computes x_t, it uses a variance of 1e-8 instead.
    """
    check.number("beta_min", beta_min, low=0)
    if check.number("beta_max", beta_max) <= beta_min:
        check.fail("beta_max", beta_max, f"greater than beta_min ({beta_min})")
    if check.number("t_min", t_min, low=0) >= 1:
        check.fail("t_min", t_min, "at least 0 and less than 1")
    time = t_min + (1 - t_min) * times_in_unit_interval(num_timesteps)
    log_alpha_bar = -(time**2) * (beta_max - beta_min) / 2 - time * beta_min
    return NoiseSchedule((log_alpha_bar - log_alpha_bar[0]).exp())
