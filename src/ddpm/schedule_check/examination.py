"""Numbers that describe a noise schedule, and a verdict. Pure functions of a NoiseSchedule."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.schedules.base import NoiseSchedule

MOST_PRIOR_BITS = 1e-3
"""Largest acceptable bits per dimension about x0 in x_T. Ho et al. 2020 have 3e-5; Lin et al. 2024, section 3.1,
consider the 3e-3 of Stable Diffusion too much."""

LEAST_FIRST_SNR = 50.0
"""Below this SNR, the noise of x_1 exceeds 18 of 256 grey levels, too much for the last step."""

FAINT = 1e-3
"""Below this SNR, an image is not visible; half of the steps there are too many."""


def log_snr_of(schedule: NoiseSchedule) -> Tensor:
    """log(alpha^2 / sigma^2), float64 `[T]` for t = 1..T; minus infinity where no signal is left."""
    alpha_bar = schedule.alpha_bar[1:]
    return alpha_bar.log() - torch.log1p(-alpha_bar)


def decibels_of(schedule: NoiseSchedule) -> Tensor:
    """The SNR in dB, float64 `[T]` for t = 1..T; minus infinity where no signal is left."""
    return log_snr_of(schedule) * (10 / math.log(10))


def single_betas(schedule: NoiseSchedule) -> Tensor:
    """beta of each step, float64 `[T]`."""
    return 1 - schedule.alpha_bar[1:] / schedule.alpha_bar[:-1]


def decibels(snr: float) -> float:
    return 10 * math.log10(snr) if snr else -math.inf


def prior_bits(schedule: NoiseSchedule, data_power: float) -> float:
    """KL(N(alpha x0, sigma^2) || N(0, 1)) at T in bits per dimension, for data whose mean square is data_power."""
    alpha_bar = schedule.alpha_bar[-1].item()
    return (alpha_bar * (data_power - 1) - math.log1p(-alpha_bar)) / (2 * math.log(2))


def num_clipped(schedule: NoiseSchedule, max_beta: float) -> int:
    """Number of steps whose beta is clipped at `max_beta`."""
    return int((single_betas(schedule) > max_beta * (1 - 1e-9)).sum())


def float32_error(schedule: NoiseSchedule) -> float:
    """Largest relative error of 1 - alpha_bar, if betas and their running product were float32."""
    single = 1 - (1 - single_betas(schedule).float()).cumprod(0)
    exact = 1 - schedule.alpha_bar[1:]
    return ((single.double() - exact) / exact).abs().max().item()


def step_budget(schedule: NoiseSchedule) -> dict[str, float]:
    """The share of the times 1..T in each decade of the SNR, in dB, from clean to noisy."""
    level = decibels_of(schedule)
    edges = [40, 30, 20, 10, 0, -10, -20, -30, -40]
    names = ["above 40", *(f"{high} to {low}" for high, low in itertools.pairwise(edges)), "below -40"]
    place = torch.bucketize(-level, torch.tensor([-edge for edge in edges], dtype=torch.float64))
    shares = torch.bincount(place, minlength=len(names)).double() / schedule.T
    return dict(zip(names, shares.tolist(), strict=True))


class Jump(NamedTuple):
    """The log-SNR, a natural logarithm, rises by `rise` in the step from time t to time s < t."""

    rise: float
    t: int
    s: int


def largest_jump(schedule: NoiseSchedule, num_steps: int) -> Jump:
    """The largest jump of a sampler with evenly spaced steps, except for infinite ones (to time 0, or from SNR 0).

    num_steps: at least 3, so that a finite jump exists.
    """
    times = timestep_spacing.uniform(schedule.T, num_steps)
    levels = [math.inf, *log_snr_of(schedule).tolist()]
    jumps = [Jump(levels[s] - levels[t], t, s) for t, s in itertools.pairwise(times)]
    return max((jump for jump in jumps if math.isfinite(jump.rise)), key=lambda jump: jump.rise)


def verdict(schedule: NoiseSchedule, leaf: Mapping[str, Any], data_power: float = 1.0) -> str:
    """ "fit", or the problems of a schedule for Gaussian diffusion with remedies, in one line.

    leaf: plain configuration of the schedule, to name fields in the remedy.
    """
    first, last = schedule.snr(1), schedule.snr(schedule.T)
    left = prior_bits(schedule, data_power)
    faint = (log_snr_of(schedule) < math.log(FAINT)).double().mean().item()
    faults = []
    if left > MOST_PRIOR_BITS:
        faults.append(f"x_T still contains {left:.2g} bits/dim about x0: use {more_noise(schedule, leaf)}")
    if faint > 0.5:
        faults.append(f"{faint:.0%} of the steps are below an SNR of {FAINT:g}: use {less_noise(schedule, leaf)}")
    if first < LEAST_FIRST_SNR:
        faults.append(
            f"the last step, from x_1 with an SNR of {first:.2g}, removes much noise at once: increase num_timesteps"
        )
    if faults:
        return "; ".join(faults)
    if last == 0:
        return "fit for objective=v and x0, not for eps, because no signal is left at T"
    return f"fit; x_T contains {left:.2g} bits/dim about x0"


def more_noise(schedule: NoiseSchedule, leaf: Mapping[str, Any]) -> str:
    exact = "schedule=zero_terminal_snr schedule@schedule.of=NAME objective=v"
    if leaf.get("rescale") is False and schedule.T < 1000:
        return f"schedule.rescale=true, or {exact}"
    return f"a larger schedule.{strength(leaf)}, or {exact}" if strength(leaf) else exact


def less_noise(schedule: NoiseSchedule, leaf: Mapping[str, Any]) -> str:
    if leaf.get("rescale") is False and schedule.T > 1000:
        return "schedule.rescale=true, or fewer num_timesteps"
    return f"a smaller schedule.{strength(leaf)}, or schedule=cosine" if strength(leaf) else "schedule=cosine"


def strength(leaf: Mapping[str, Any]) -> str | None:
    """The field that scales the noise of a schedule, or None."""
    return next((field for field in ("beta_end", "beta", "beta_max") if field in leaf), None)
