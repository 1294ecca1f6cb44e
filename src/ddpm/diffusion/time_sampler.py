"""Distributions of the times t of a training step."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.diffusion.schedules.base import NoiseSchedule

GOLDEN = 0.6180339887498949  # (sqrt(5) - 1) / 2, the number that rationals approximate worst


class TimeSampler(Protocol):
    """weights_times: whether the drawn times are a weight that `importance` does not undo."""

    weights_times: ClassVar[bool]

    def __call__(self, draws: Draws, T: int) -> Tensor:
        """int64 `[B]` in 1..T."""
        ...

    def importance(self, t: Tensor, T: int) -> Tensor | None:
        """Weights 1 / (T p(t)), `[B]`, with which a mean over t estimates the mean over uniform t; None: all 1."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Independent and uniform (Ho et al. 2020, algorithm 1).

    largest: the largest time drawn, for models that never start from a larger one (AnoDDPM); None: T.
    """

    weights_times: ClassVar[bool] = False
    largest: int | None = None

    def __call__(self, draws: Draws, T: int) -> Tensor:
        if self.largest is not None:
            check.integer("time_sampler.largest", self.largest, low=1, high=T)
        return 1 + draws.integers("t", self.largest or T)

    def importance(self, t: Tensor, T: int) -> None:
        return None


@dataclass(frozen=True)
class Stratified:
    """Uniform, but spread evenly over each batch, which lowers the variance of the loss.

    Kingma et al. 2021 (section I.1) space the times of a batch by 1 / B from one random offset. We space them by the
    golden ratio along the order of the epoch. Then the times of consecutive samples are always spread evenly, and do
    not depend on the batch size or the number of processes.
    """

    weights_times: ClassVar[bool] = False

    def __call__(self, draws: Draws, T: int) -> Tensor:
        return 1 + (evenly(draws) * T).long().clamp_(max=T - 1)

    def importance(self, t: Tensor, T: int) -> None:
        return None


@dataclass(frozen=True)
class LogitNormal(check.Checked):
    """t / T is the logistic function of a normal number (Esser et al. 2024, section 3.1), spread as in `Stratified`.

    Most times are in the middle, where a network has most to learn. Nothing corrects the loss for this, so it is a
    weight of the times, too: losses that are bounds refuse it. mean: above 0 for more noise. std: of the normal number.
    """

    weights_times: ClassVar[bool] = True
    mean: check.Number = 0.0
    std: check.PositiveNumber = 1.0

    def __call__(self, draws: Draws, T: int) -> Tensor:
        normal = torch.special.ndtri(evenly(draws).clamp(min=1e-12))
        return 1 + (torch.sigmoid(self.mean + self.std * normal) * T).long().clamp_(max=T - 1)

    def importance(self, t: Tensor, T: int) -> None:
        return None


def evenly(draws: Draws) -> Tensor:
    """Numbers in [0, 1), float64 `[B]`, uniform, and spread evenly over consecutive samples."""
    if draws.positions is None:
        raise ValueError(
            "time_sampler=stratified and logit_normal need the samples' positions in the epoch, which these draws do "
            "not have"
        )
    offset = draws.rng.at(draws.step, torch.zeros_like(draws.ids[:1])).uniform("t offset")
    return (offset.double() + GOLDEN * draws.positions.double()) % 1


class LossAware(nn.Module):
    """p(t) proportional to the root of the mean squared loss at t (Nichol and Dhariwal 2021, section 3.3 and eq. 18).

    The mean is over the last num_losses losses at each time. p(t) is uniform until all times have that many, and
    outside of training. uniform_share: weight of an added uniform distribution, as in their code, so that all times
    are drawn. A module, because checkpoints contain its buffers `losses` `[T, num_losses]` and `num_seen` `[T]`.
    """

    weights_times: ClassVar[bool] = False
    losses: Tensor
    num_seen: Tensor

    def __init__(self, schedule: NoiseSchedule, num_losses: int, uniform_share: float) -> None:
        super().__init__()
        check.positive_int("num_losses", num_losses)
        self.uniform_share = check.number("uniform_share", uniform_share, low=0, high=1)
        self.register_buffer("losses", torch.zeros(schedule.T, num_losses))
        self.register_buffer("num_seen", torch.zeros(schedule.T, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """p(t) of the times 1..T, float64 `[T]`, without synchronization with the device."""
        T, num_losses = self.losses.shape
        roots = self.losses.double().square().mean(1).sqrt()
        total = roots.sum()
        known = (self.num_seen >= num_losses).all() & (total > 0)
        learned = roots / torch.where(known, total, 1) * (1 - self.uniform_share) + self.uniform_share / T
        return torch.where(known, learned, 1 / T)

    def __call__(self, draws: Draws, T: int) -> Tensor:
        if not self.training:
            return Uniform()(draws, T)
        place = draws.uniform("t").double()
        return 1 + torch.searchsorted(self.probabilities().cumsum(0), place, right=True).clamp_(max=T - 1)

    def importance(self, t: Tensor, T: int) -> Tensor | None:
        return 1 / (T * self.probabilities()[t - 1]) if self.training else None

    @torch.no_grad()
    def observe(self, t: Tensor, loss: Tensor) -> None:
        """Record the losses `[n]` at the times t `[n]` of a step, in an order that does not depend on the rank."""
        T, num_losses = self.losses.shape
        order = t.argsort(stable=True)
        row, loss = t[order] - 1, loss[order].to(self.losses.dtype)
        counts = torch.zeros_like(self.num_seen).index_add_(0, row, torch.ones_like(row))
        number = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]  # index among equal times
        column = (self.num_seen[row] + number) % num_losses
        last = number >= counts[row] - num_losses  # of more than num_losses, keep the last ones
        place = torch.where(last, row * num_losses + column, T * num_losses)
        padded = torch.cat([self.losses.flatten(), self.losses.new_zeros(1)])
        self.losses.copy_(padded.index_put((place,), loss)[:-1].view(T, num_losses))
        self.num_seen += counts
