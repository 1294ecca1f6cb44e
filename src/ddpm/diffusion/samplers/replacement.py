"""Sampling with a known linear projection of x0, such as some pixels or the mean of each block.

After each step of any sampler, the projection of x_s is replaced by that of y_s, the known image with the noise of time
s: x_s - P(x_s) + P(y_s) (Sohl-Dickstein et al. 2015, section 2.5; Lugmayr et al. 2022, "RePaint", algorithm 1; Choi et
al. 2021, "ILVR", algorithm 1). The unknown part then only approximately follows its conditional distribution, because
each step depends on the known part only through y_t. RePaint's resampling reduces this error.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws, Rng
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.process import MarkovProcess
from ddpm.diffusion.samplers.base import Sampler, State

Projection = Callable[[Tensor], Tensor]
"""P: a linear map from images `[B, C, H, W]` to images of that shape, with P(P(x)) = P(x)."""


@dataclass(frozen=True)
class PixelProjection:
    """Keeps the pixels where mask is 1, and sets the others to 0. mask: `[h, w]` of 0 and 1, enlarged to x."""

    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x * F.interpolate(self.mask.to(x)[None, None], x.shape[-2:], mode="nearest")


def channel_mean(x: Tensor) -> Tensor:
    """The mean over the channels, repeated in each channel: the image in grey."""
    return x.mean(dim=1, keepdim=True).expand_as(x)


@dataclass(frozen=True)
class BlockMean:
    """Sets each block of factor x factor pixels to its mean; H and W must be multiples of factor."""

    factor: int

    def __call__(self, x: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(x, self.factor), scale_factor=self.factor, mode="nearest")


def replace_known(x: Tensor, y: Tensor, projection: Projection) -> Tensor:
    """x with its projection replaced by that of y: exact if projections are pixels, else up to rounding."""
    return x - projection(x) + projection(y)


KnownSampler = Callable[[MarkovProcess, Tensor, State, int, Draws], Tensor]
"""Maps (process, x0, state, s, draws) to y_s of the known x0, where `state` is that at t > s. y_0 is x0."""


def independent(process: MarkovProcess, x0: Tensor, state: State, s: int, draws: Draws) -> Tensor:
    """Draws y_s from q(y_s | x0), independently of the previous step (RePaint, algorithm 1, line 5)."""
    return process.marginal(x0, s).sample(draws, "known")


def posterior(process: MarkovProcess, x0: Tensor, state: State, s: int, draws: Draws) -> Tensor:
    """Draws y_s from q(y_s | x_t, x0), so that the known parts form one trajectory of the forward process."""
    return process.posterior(x0, state.x_t, s, state.t).sample(draws, "known")


def resampling_path(times: Sequence[int], jump_length: int, num_resamples: int) -> list[int]:
    """A sampler's times with RePaint's resampling: every jump_length-th time is followed by num_resamples - 1 jumps.

    times: falling to 0. A jump goes up by jump_length times in one step. The paper's code takes as many small steps,
    which is equivalent, since the forward process is Markov. The first jumps start at the time before 0, so none starts
    at 0 (algorithm 1, "t > 1"), and jump_length must be less than the number of steps.
    """
    rising, steps = list(reversed(times)), len(times) - 1
    check.positive_int("num_resamples", num_resamples)
    if num_resamples > 1:
        check.integer("jump_length", jump_length, low=1, high=steps - 1)
    left = dict.fromkeys(range(1, steps - jump_length + 1, jump_length), num_resamples - 1)
    place, path = steps, [rising[steps]]
    while place > 0:
        place -= 1
        path.append(rising[place])
        if left.get(place, 0) > 0:
            left[place] -= 1
            place += jump_length
            path.append(rising[place])
    return path


@torch.no_grad()
def replacement_trajectory(
    sampler: Sampler,
    denoiser: Denoiser,
    x0: Tensor,
    projection: Projection,
    redraw: KnownSampler,
    times: Sequence[int],
    rng: Rng,
    ids: Tensor,
    cond: Cond | None = None,
) -> Iterator[State]:
    """Yields the state after each step along `times`, from the prior to 0; the last one has the projection of x0.

    x0: `[B, C, H, W]`, of which only the projection is used. times: from T to 0; where they rise, noise is added. ids:
    int64 `[B]`. Each visit of a time has its own draws, so no random number is used twice.
    """
    process, visits = sampler.process, Counter({times[0]: 1})
    if not isinstance(process, MarkovProcess):
        raise ValueError(f"a known part needs process=gaussian or binomial, not {type(process).__name__}")
    draws = rng.at(times[0], ids)
    x_T = process.prior(tuple(x0.shape[1:]), draws).to(x0.dtype)
    known = process.marginal(x0, times[0]).sample(draws, "known")
    state = State(times[0], replace_known(x_T, known, projection))
    for number, s in enumerate(times[1:], 1):
        draws = visit_rng(rng, visits[s]).at(s, ids)
        visits[s] += 1
        if s > state.t:
            state = State(s, renoise(process, state, s, draws), state.prediction)  # multistep samplers restart
        else:
            known = redraw(process, x0, state, s, draws)
            state = state._replace(left=len(times) - number)
            state = sampler.step(denoiser, state, s, sampler.conditions(cond, state, draws), draws)
            state = state._replace(x_t=replace_known(state.x_t, known, projection))
        yield state


def visit_rng(rng: Rng, number: int) -> Rng:
    """The random numbers of the number-th repeated visit of a time. The first visit (number=0) uses `rng`."""
    return replace(rng, scope=f"{rng.scope}, visit {number}") if number else rng


def renoise(process: MarkovProcess, state: State, t: int, draws: Draws) -> Tensor:
    """A sample of q(x_t | x_s), where `state` is that at s < t."""
    if not isinstance(process, GaussianDiffusion):
        raise ValueError(f"resampling needs process=gaussian, not {type(process).__name__}; take num_resamples=1")
    z = process.noise(draws, "jump", tuple(state.x_t.shape[1:])).to(state.x_t.dtype)
    return process.advance(state.x_t, state.t, t, z)
