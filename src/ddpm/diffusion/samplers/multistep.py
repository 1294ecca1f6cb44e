"""Parts of multistep solvers: stored predictions, and the exact solution of a step in lambda, half the log-SNR.

With lambda = log(alpha / sigma), the flow is x_s / sigma_s = x_t / sigma_t + integral of exp(lambda) x0(lambda) from t
to s (Lu et al. 2022, "DPM-Solver++", eq. 8). A solver estimates x0 between t and s from its values at t and before.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.schedules.base import NoiseSchedule


class Past(NamedTuple):
    """A prediction of x0 `[B, C, H, W]` that was made at time t."""

    t: int
    x0: Tensor


def constant_x0(schedule: NoiseSchedule, s: int, t: int) -> tuple[float, float]:
    """Factors of x_t and x0 in x_s for a constant x0 between t and s: the DDIM step."""
    of_x_t = schedule.sigma(s) / schedule.sigma(t)
    return of_x_t, schedule.alpha(s) - schedule.alpha(t) * of_x_t


def span(schedule: NoiseSchedule, s: int, t: int) -> float:
    """lambda_s - lambda_t, positive for s < t; infinite at s = 0 and where no signal is left at t."""
    return schedule.half_log_snr(s) - schedule.half_log_snr(t)


def with_signal(schedule: NoiseSchedule, past: tuple[Past, ...]) -> tuple[Past, ...]:
    """The newest prediction, and those of the others that have a finite lambda."""
    return past[:1] + tuple(each for each in past[1:] if math.isfinite(schedule.half_log_snr(each.t)))


def final_order(order: int, state: State, s: int, lower_order_final: bool) -> int:
    """The order of a step: 1 to 0, where lambda is infinite; with lower_order_final at most the steps left."""
    return 1 if s == 0 else int(min(order, state.left)) if lower_order_final else order


def combine(x: Tensor, factor: float, *parts: tuple[float, Tensor]) -> Tensor:
    """factor * x plus the sum of c * y over the parts (c, y)."""
    total = x * factor
    for c, y in parts:
        total.add_(y, alpha=c)
    return total


def multistep_update(
    schedule: NoiseSchedule, x_t: Tensor, past: tuple[Past, ...], s: int, at_s: Past | None = None
) -> Tensor:
    """x_s from x_t at past[0].t, with x0 as a polynomial through `past` and, in a corrector, its value at s."""
    t, x0 = past[0]
    of_x_t, of_x0 = constant_x0(schedule, s, t)
    nodes = [*past[1:], *([at_s] if at_s else [])]
    if not nodes:
        return combine(x_t, of_x_t, (of_x0, x0))
    h = span(schedule, s, t)
    places = [span(schedule, each.t, t) / h for each in past[1:]] + ([1.0] if at_s else [])
    # weights of x0(r) - x0(0), divided by the place r, relative to B(h), and so to of_x0
    weights = [w / r for w, r in zip(moment_weights(tuple(places), h), places, strict=True)]
    parts = [(of_x0 * w, node.x0) for w, node in zip(weights, nodes, strict=True)]
    return combine(x_t, of_x_t, (of_x0 * (1 - sum(weights)), x0), *parts)


@functools.lru_cache(maxsize=10_000)  # the same for every batch
def moment_weights(places: tuple[float, ...], h: float) -> list[float]:
    """Weights w with sum of w r^(k-1) = k! phi_(k+1)(h) / phi_1(h) for k = 1, 2, ... (Zhao et al. 2023, eq. 5).

    For one place the weight is 1/2, as in the paper, which is simpler and keeps the order.
    """
    if len(places) == 1:
        return [0.5]
    if math.isinf(h):  # the first step from where no signal is left
        return [0.0] * len(places)
    moments, phi, factorial = [], math.expm1(-h) / -h - 1, 1
    for k in range(1, len(places) + 1):
        moments.append(phi * factorial / math.expm1(-h))
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    powers = torch.tensor([[r ** (k - 1) for r in places] for k in range(1, len(places) + 1)], dtype=torch.float64)
    return torch.linalg.solve(powers, torch.tensor(moments, dtype=torch.float64)).tolist()
