"""Any schedule, adjusted. of: the schedule that is, of as many num_timesteps."""

from ddpm.base import check
from ddpm.diffusion.schedules.base import NoiseSchedule


def zero_terminal_snr(num_timesteps: int, of: NoiseSchedule) -> NoiseSchedule:
    """To end without signal: the root of alpha_bar shifted to 0 at T, then scaled so that t = 1 stays.

    Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1. What is left of the
    signal at T gives away the mean brightness in training, which pure noise does not hold when samples are made.
    At least 2 num_timesteps. It goes with objective=v and x0.
    """
    root = of_length(num_timesteps, of, at_least=2).alpha_bar.sqrt()
    scaled = (root - root[-1]) * root[1] / (root[1] - root[-1])
    scaled[0] = 1
    return NoiseSchedule(scaled**2)


def shifted(num_timesteps: int, base: float, size: float, of: NoiseSchedule) -> NoiseSchedule:
    """From images of one size to those of another: log-SNR + 2 log(base / size).

    Hoogeboom et al. 2023, "simple diffusion", section 3.1: averaging the pixels of a larger image averages their noise
    too, so the same noise hides less of it; the shift makes the average down to `base` pixels as noisy as it was.
    base: the side, in pixels, that the schedule was made for; size: that of the images, or of their latents.
    """
    ratio = (check.positive_number("base", base) / check.positive_number("size", size)) ** 2
    signal = of_length(num_timesteps, of).alpha_bar * ratio
    return NoiseSchedule(signal / (signal + (1 - of.alpha_bar)))


def of_length(num_timesteps: int, of: NoiseSchedule, at_least: int = 1) -> NoiseSchedule:
    """`of`, once it is known to have num_timesteps, and enough of them."""
    check.integer("num_timesteps", num_timesteps, at_least)
    if not isinstance(of, NoiseSchedule):
        check.fail("of", of, "a schedule, which is chosen as schedule@schedule.of=linear")
    if num_timesteps != of.T:
        raise ValueError(
            f"num_timesteps must be that of the schedule which is adjusted, {of.T}, got {num_timesteps}; set "
            "schedule.num_timesteps alone, from which schedule.of takes its own"
        )
    return of
