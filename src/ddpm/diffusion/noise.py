"""Where noise comes from: what Gaussian diffusion adds and, unless process.reverse_noise=white, reverse steps add."""

from dataclasses import dataclass
from typing import ClassVar, NoReturn, Protocol

from torch import Tensor

from ddpm.base.rng import Draws


class Noise(Protocol):
    @property
    def white(self) -> bool:
        """Whether all its numbers are independent standard normals, which every formula of a likelihood needs."""
        ...

    def __call__(self, draws: Draws, stream: str, shape: tuple[int, ...]) -> Tensor:
        """float32 `[B, *shape]`, of mean 0; a sample's noise depends on its draws alone."""
        ...


@dataclass(frozen=True)
class White:
    """Independent standard normals (Ho et al. 2020)."""

    white: ClassVar[bool] = True

    def __call__(self, draws: Draws, stream: str, shape: tuple[int, ...]) -> Tensor:
        return draws.normal(stream, shape)


WHITE = White()


def refuse_coloured(noise: Noise) -> NoReturn:
    """ValueError, of what would need white noise."""
    raise ValueError(
        f"likelihoods and scores are those of white noise, and this process adds {type(noise).__name__}: choose "
        "noise=gaussian, or a loss, sampler and metric without them (loss=simple, sampler=ddim, metric=fid)"
    )
