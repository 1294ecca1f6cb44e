"""Any schedule, made to end without signal: the root of alpha_bar shifted to 0 at T, then scaled so that t = 1 stays.

Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1. What is left of the signal
at T gives away the mean brightness in training, which pure noise does not hold when samples are made.
"""

from ddpm.diffusion.schedule import NoiseSchedule, of_length


def zero_terminal_snr(num_timesteps: int, of: NoiseSchedule) -> NoiseSchedule:
    """of: the schedule that is adjusted, of as many num_timesteps, at least 2. It goes with objective=v and x0."""
    root = of_length(num_timesteps, of, at_least=2).alpha_bar.sqrt()
    scaled = (root - root[-1]) * root[1] / (root[1] - root[-1])
    scaled[0] = 1
    return NoiseSchedule(scaled**2)
