"""beta_t = 1 / (T - t + 1): each step removes the same share of the signal's variance.

Sohl-Dickstein et al. 2015, section 2.4.1; "jsd" in the code of Ho et al. 2020. alpha_bar is the line
1 - t / T and ends at 0, no signal at all.
"""

from ddpm.diffusion.schedule import NoiseSchedule, times_in_unit_interval


def jsd(num_timesteps: int) -> NoiseSchedule:
    return NoiseSchedule(1 - times_in_unit_interval(num_timesteps))
