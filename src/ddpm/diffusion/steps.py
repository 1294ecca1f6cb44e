"""Times without noise: what stands for a schedule where a process says itself how much is left at each of them."""

from dataclasses import dataclass
from typing import NoReturn

from ddpm.diffusion.schedule import NoiseSchedule, checked_timesteps


@dataclass(frozen=True)
class Steps:
    """Times 0..T and nothing else. num_timesteps: T."""

    num_timesteps: int

    def __post_init__(self) -> None:
        checked_timesteps(self.num_timesteps)

    @property
    def T(self) -> int:
        return self.num_timesteps

    def __getattr__(self, name: str) -> NoReturn:
        """Whoever asks for alpha, sigma, a signal-to-noise ratio, ... was made for noise."""
        if name.startswith("_"):
            raise AttributeError(name)
        raise ValueError(
            f"schedule=steps has times but no noise, so there is no {name}: with a process that has none (blur, mask, "
            "...) use objective=x0, weight=uniform, loss=simple, timestep_spacing=uniform; with noise, schedule=cosine"
        )


Schedule = NoiseSchedule | Steps
