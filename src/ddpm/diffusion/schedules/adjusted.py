"""Adjustments of another schedule. of: the schedule to adjust, with the same num_timesteps."""

from ddpm.base import check
from ddpm.diffusion.schedules.base import NoiseSchedule


def zero_terminal_snr(num_timesteps: int, of: NoiseSchedule, floor: float = 0.0) -> NoiseSchedule:
    """Zero terminal SNR: the root of alpha_bar is shifted to 0 at T, then scaled to keep its value at t = 1.

    Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1. Signal that is left at
    T reveals the mean brightness in training, while sampling starts from pure noise. num_timesteps: at least 2. Use it
    with objective=v or objective=x0. floor: alpha_bar at T, which solvers in sigma / alpha of diffusers set to 2^-24.
    """
    check.number("floor", floor, low=0, high=1)
    root = of_length(num_timesteps, of, at_least=2).alpha_bar.sqrt()
    scaled = (root - root[-1]) * root[1] / (root[1] - root[-1])
    scaled[0], scaled[-1] = 1, floor**0.5
    return NoiseSchedule(scaled**2)


def shifted(num_timesteps: int, base: float, size: float, of: NoiseSchedule) -> NoiseSchedule:
    """Adapts a schedule to another image size: log-SNR + 2 log(base / size).

    Hoogeboom et al. 2023, "simple diffusion", section 3.1: averaging the pixels of a larger image also averages their
    noise, so the same noise removes less information. After the shift, the average over blocks down to `base` pixels
    has the original SNR. base: the side, in pixels, of the schedule's images; size: that of the images or latents.
    """
    ratio = (check.positive_number("base", base) / check.positive_number("size", size)) ** 2
    signal = of_length(num_timesteps, of).alpha_bar * ratio
    return NoiseSchedule(signal / (signal + (1 - of.alpha_bar)))


def of_length(num_timesteps: int, of: NoiseSchedule, at_least: int = 1) -> NoiseSchedule:
    """`of`; ValueError unless it has num_timesteps, and at least `at_least`."""
    check.integer("num_timesteps", num_timesteps, at_least)
    if not isinstance(of, NoiseSchedule):
        check.fail("of", of, "a schedule, which is chosen as schedule@schedule.of=linear")
    if num_timesteps != of.T:
        raise ValueError(
            f"num_timesteps must equal that of the adjusted schedule, {of.T}, got {num_timesteps}; set only "
            "schedule.num_timesteps, which schedule.of uses too"
        )
    return of
