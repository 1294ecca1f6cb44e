"""Sampling where a part of x0 is known: a linear projection of it, such as some pixels or the mean of each block.

After each step of any sampler the known part of x_s is put in place of the sampler's: x_s - P(x_s) + P(y_s), with y_s
the known image as noisy as x_s (Sohl-Dickstein et al. 2015, section 2.5; Lugmayr et al. 2022, "RePaint", algorithm 1;
Choi et al. 2021, "ILVR", algorithm 1). The part that is not known then follows an approximation of its distribution
given the known one: each step hears of the known part only through y_t. Going up and down again (RePaint) mends much
of it.
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
"""P: images `[B, C, H, W]` to images of that shape, linear, with P(P(x)) = P(x)."""


@dataclass(frozen=True)
class PixelProjection:
    """The pixels where mask is 1, and 0 elsewhere. mask: of 0 and 1, `[h, w]`; a larger x has blocks of them."""

    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x * F.interpolate(self.mask.to(x)[None, None], x.shape[-2:], mode="nearest")


def channel_mean(x: Tensor) -> Tensor:
    """The mean over the channels, in each of them: what is grey of a picture."""
    return x.mean(dim=1, keepdim=True).expand_as(x)


@dataclass(frozen=True)
class BlockMean:
    """The mean of each block of factor x factor pixels, in each of its pixels; H and W must be multiples of factor."""

    factor: int

    def __call__(self, x: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(x, self.factor), scale_factor=self.factor, mode="nearest")


def replace_known(x: Tensor, y: Tensor, projection: Projection) -> Tensor:
    """x with the projection of y in place of its own: exact where projections are pixels, else up to rounding."""
    return x - projection(x) + projection(y)


KnownSampler = Callable[[MarkovProcess, Tensor, State, int, Draws], Tensor]
"""(process, x0, state, s, draws) to a y_s from the known x0, given the state before, at t > s. x0 itself at s = 0."""


def independent(process: MarkovProcess, x0: Tensor, state: State, s: int, draws: Draws) -> Tensor:
    """From q(y_s | x0), independent of the step before (RePaint, algorithm 1, line 5)."""
    return process.marginal(x0, s).sample(draws, "known")


def posterior(process: MarkovProcess, x0: Tensor, state: State, s: int, draws: Draws) -> Tensor:
    """From q(y_s | x_t, x0), so that the known part of a run is one trajectory of the forward process."""
    return process.posterior(x0, state.x_t, s, state.t).sample(draws, "known")


def resampling_path(times: Sequence[int], jump_length: int, num_resamples: int) -> list[int]:
    """A sampler's times with RePaint's resampling: at every jump_length-th of them back up, num_resamples - 1 times.

    times: falling to 0. A jump leads up by jump_length of them at once, where the paper's code goes in as many small
    steps, since the forward process is Markov. The first place is the time before 0, so the clean end is never left
    (algorithm 1, "t > 1"), and jump_length must be less than the number of steps.
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
    """Every state of a run along `times`, from the prior to 0, whose last has the projection of x0.

    x0: `[B, C, H, W]`, of which only the projection is used. times: from T to 0; where they rise, noise is added. ids:
    int64 `[B]`. A time that is visited again has draws of its own, so nothing is drawn twice.
    """
    process, visits = sampler.process, Counter({times[0]: 1})
    if not isinstance(process, MarkovProcess):
        raise ValueError(f"a known part can be kept by process=gaussian or binomial, not by {type(process).__name__}")
    draws = rng.at(times[0], ids)
    x_T = process.prior(tuple(x0.shape[1:]), draws).to(x0.dtype)
    known = process.marginal(x0, times[0]).sample(draws, "known")
    state = State(times[0], replace_known(x_T, known, projection))
    for s in times[1:]:
        draws = visit_rng(rng, visits[s]).at(s, ids)
        visits[s] += 1
        if s > state.t:
            state = State(s, renoise(process, state, s, draws), state.prediction)  # a multi-step rule starts anew
        else:
            known = redraw(process, x0, state, s, draws)
            state = sampler.step(denoiser, state, s, sampler.conditions(cond, state, draws), draws)
            state = state._replace(x_t=replace_known(state.x_t, known, projection))
        yield state


def visit_rng(rng: Rng, number: int) -> Rng:
    """The random numbers of the number-th further visit to a time; at the first, those of any sampling."""
    return replace(rng, scope=f"{rng.scope}, visit {number}") if number else rng


def renoise(process: MarkovProcess, state: State, t: int, draws: Draws) -> Tensor:
    """x_t from x_s, s < t."""
    if not isinstance(process, GaussianDiffusion):
        raise ValueError(f"resampling needs process=gaussian, not {type(process).__name__}; take num_resamples=1")
    z = process.noise(draws, "jump", tuple(state.x_t.shape[1:])).to(state.x_t.dtype)
    return process.advance(state.x_t, state.t, t, z)
