"""The variance preserving SDE at evenly spaced times: any number of steps, even four, reaches the same noise.

Song et al. 2021, "Score-Based Generative Modeling through SDEs", eq. 33; cut into few steps in the code of
denoising diffusion GANs (Xiao et al. 2022).
"""

from ddpm.base import check
from ddpm.diffusion.schedule import NoiseSchedule, times_in_unit_interval


def vp(num_timesteps: int, beta_min: float, beta_max: float, t_min: float) -> NoiseSchedule:
    """beta(t) rises evenly from beta_min to beta_max; both are rates over the unit of time, not variances of steps.

    t_min: where time starts. The noise before it, of variance 2e-4 at 1e-3, is left out, as in the posteriors of the
    GANs' code, which replaces it by 1e-8 when it makes x_t.
    """
    check.number("beta_min", beta_min, low=0)
    if check.number("beta_max", beta_max) <= beta_min:
        check.fail("beta_max", beta_max, f"greater than beta_min ({beta_min})")
    if check.number("t_min", t_min, low=0) >= 1:
        check.fail("t_min", t_min, "at least 0 and less than 1")
    time = t_min + (1 - t_min) * times_in_unit_interval(num_timesteps)
    log_alpha_bar = -(time**2) * (beta_max - beta_min) / 2 - time * beta_min
    return NoiseSchedule((log_alpha_bar - log_alpha_bar[0]).exp())
