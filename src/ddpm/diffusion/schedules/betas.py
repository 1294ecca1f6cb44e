"""Schedules defined by the variances of their single steps, the betas.

rescale: multiply the betas by 1000 / num_timesteps, so that the noise level at T is about the same for any T.
"""

from collections.abc import Sequence

import torch

from ddpm.base import check
from ddpm.diffusion.schedules.base import NoiseSchedule, checked_timesteps, from_betas

GAP = 1e-5
"""How far the betas of Sohl-Dickstein et al. 2015 stay below 1."""


def linear(num_timesteps: int, beta_start: float, beta_end: float, rescale: bool) -> NoiseSchedule:
    """Linearly increasing betas: the schedule of Ho et al. 2020, section 4 (1e-4 to 0.02 in 1,000 steps)."""
    T, start, end = limits(num_timesteps, beta_start, beta_end, rescale)
    return from_betas(torch.linspace(start, end, T, dtype=torch.float64))


def quadratic(num_timesteps: int, beta_start: float, beta_end: float, rescale: bool) -> NoiseSchedule:
    """Betas with linearly increasing roots: "quad" in Ho et al.'s code, "scaled linear" in latent diffusion."""
    T, start, end = limits(num_timesteps, beta_start, beta_end, rescale)
    return from_betas(torch.linspace(start**0.5, end**0.5, T, dtype=torch.float64) ** 2)


def constant(num_timesteps: int, beta: float, rescale: bool) -> NoiseSchedule:
    """The same beta at every step ("const" in the code of Ho et al. 2020)."""
    T = checked_timesteps(num_timesteps)
    return from_betas(torch.full((T,), rescale_beta(beta, T, rescale, "beta"), dtype=torch.float64))


def warmup(num_timesteps: int, beta_start: float, beta_end: float, fraction: float, rescale: bool) -> NoiseSchedule:
    """Betas that increase linearly and then stay constant: "warmup10" and "warmup50" in the code of Ho et al. 2020.

    fraction: the share of the steps, in [0, 1], over which beta rises from beta_start to beta_end.
    """
    T, start, end = limits(num_timesteps, beta_start, beta_end, rescale)
    rise = int(T * check.number("fraction", fraction, low=0, high=1))
    betas = torch.full((T,), end, dtype=torch.float64)
    betas[:rise] = torch.linspace(start, end, rise, dtype=torch.float64)
    return from_betas(betas)


def trained(num_timesteps: int, betas: Sequence[float]) -> NoiseSchedule:
    """The given betas, one for each step ("trained_betas" in diffusers)."""
    if len(betas) != checked_timesteps(num_timesteps):
        check.fail("betas", f"{len(betas)} numbers", f"a list of num_timesteps = {num_timesteps} numbers")
    return from_betas(torch.tensor(list(betas), dtype=torch.float64))


def sigmoid_beta(num_timesteps: int, beta_start: float, beta_end: float, rescale: bool) -> NoiseSchedule:
    """Betas along a logistic curve from -6 to 6 (code of GeoDiff, Xu et al. 2022; "sigmoid" in diffusers).

    In schedule=sigmoid, alpha_bar is the logistic curve instead. beta_start, beta_end: the asymptotes of the curve. The
    first and last beta are sigmoid(-6) = 0.25% of their difference away from them.
    """
    T, start, end = limits(num_timesteps, beta_start, beta_end, rescale)
    return from_betas(start + (end - start) * torch.sigmoid(torch.linspace(-6, 6, T, dtype=torch.float64)))


def dpm2015(num_timesteps: int, min_beta: float, step1_beta: float) -> NoiseSchedule:
    """1 / linspace(T, 2, T) above a floor: `generate_beta_arr` in the code of Sohl-Dickstein et al. 2015.

    The paper's 1 / (T - t + 1) (schedule=jsd) removes all signal; here about 1 / T of its variance is left. min_beta:
    the floor of all betas; step1_beta: added to the floor of the first beta, as the smallest variance of their model.
    Their perturbation by temporal basis functions is 0 here.
    """
    T = checked_timesteps(num_timesteps)
    floor = torch.full((T,), check.number("min_beta", min_beta, low=0, high=0.5), dtype=torch.float64)
    floor[0] += check.number("step1_beta", step1_beta, low=0, high=0.4)
    baseline = 1 / torch.linspace(T, 2, T, dtype=torch.float64)
    return from_betas(floor + baseline * (1 - floor - GAP))


def limits(num_timesteps: int, beta_start: float, beta_end: float, rescale: bool) -> tuple[int, float, float]:
    """T and both betas, checked and rescaled."""
    T = checked_timesteps(num_timesteps)
    return T, rescale_beta(beta_start, T, rescale, "beta_start"), rescale_beta(beta_end, T, rescale, "beta_end")


def rescale_beta(beta: float, T: int, rescale: bool, name: str) -> float:
    """A beta for 1,000 steps, multiplied by 1000 / T if `rescale` is set; `name` is used in error messages."""
    check.number(name, beta)
    if not 0 < beta < 1:
        check.fail(name, beta, "greater than 0 and less than 1")
    scaled = beta * 1000 / T if check.boolean("rescale", rescale) else beta
    if scaled >= 1:
        raise ValueError(
            f"{name} must be less than 1 after the rescaling by 1000 / T, got {beta:g} * 1000 / {T} = {scaled:g}; "
            "take more num_timesteps, rescale=false, or schedule=cosine, which has no such limit"
        )
    return scaled
