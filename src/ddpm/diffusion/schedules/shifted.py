"""Any schedule, made for images of one size and used for another: log-SNR + 2 log(base / size).

Hoogeboom et al. 2023, "simple diffusion", section 3.1: averaging the pixels of a larger image averages their noise too,
so the same noise hides less of it; the shift makes the average down to `base` pixels as noisy as it was.
"""

from ddpm.base import check
from ddpm.diffusion.schedule import NoiseSchedule, of_length


def shifted(num_timesteps: int, base: float, size: float, of: NoiseSchedule) -> NoiseSchedule:
    """base: the side, in pixels, that the schedule was made for; size: that of the images, or of their latents."""
    ratio = (check.positive_number("base", base) / check.positive_number("size", size)) ** 2
    signal = of_length(num_timesteps, of).alpha_bar * ratio
    return NoiseSchedule(signal / (signal + (1 - of.alpha_bar)))
