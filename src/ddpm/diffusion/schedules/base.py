"""Noise schedules: one table, `alpha_bar`, defines signal and noise of a sample at each time.

Times are 0..T with 0 = clean, so row 0 of the table is 1 (Ho et al. 2020 number their betas 1..T in the same way).
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NoReturn, overload

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.base.types import Time
from ddpm.diffusion.coefficients import Coefficient


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """alpha_bar: float64 `[T + 1]`, the share of signal variance at each time; 1 at time 0 and strictly decreasing.

    Not an nn.Module, because `.to(bfloat16)` would round many rows to equal values. For an int time, methods return
    Python floats and need no device; times `[B]` are looked up on their own device in float64.
    """

    alpha_bar: Tensor
    _copies: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        a = self.alpha_bar
        if a.ndim != 1 or len(a) < 2 or a.dtype != torch.float64:
            check.fail("alpha_bar", f"{a.dtype} {list(a.shape)}", "float64 of shape [T + 1] with T at least 1")
        if a[0] != 1 or a[-1] < 0 or not bool((a.diff() < 0).all()):
            raise ValueError(f"alpha_bar must be 1 at time 0 and fall strictly, never below 0, got {first_fault(a)}")

    @property
    def T(self) -> int:
        """The last time, which is the number of noising steps."""
        return len(self.alpha_bar) - 1

    @overload
    def alpha(self, t: int) -> float: ...
    @overload
    def alpha(self, t: Tensor) -> Tensor: ...
    def alpha(self, t: Time) -> Coefficient:
        """Scale of the signal in x_t, the root of alpha_bar."""
        return self._at(t) ** 0.5

    @overload
    def sigma(self, t: int) -> float: ...
    @overload
    def sigma(self, t: Tensor) -> Tensor: ...
    def sigma(self, t: Time) -> Coefficient:
        """Scale of the noise in x_t, the root of 1 - alpha_bar; 0 at t = 0."""
        return (1 - self._at(t)) ** 0.5

    @overload
    def snr(self, t: int) -> float: ...
    @overload
    def snr(self, t: Tensor) -> Tensor: ...
    def snr(self, t: Time) -> Coefficient:
        """Signal-to-noise ratio alpha^2 / sigma^2, for t >= 1."""
        alpha_bar = self._at(t)
        return alpha_bar / (1 - alpha_bar)

    def half_log_snr(self, t: int) -> float:
        """log(alpha / sigma), the lambda of DPM-Solver (Lu et al. 2022, eq. 3.3).

        Infinity at t = 0, minus infinity where no signal is left.
        """
        alpha_bar = self._rows[t]
        if 0 < alpha_bar < 1:
            return (math.log(alpha_bar) - math.log1p(-alpha_bar)) / 2
        return math.inf if alpha_bar == 1 else -math.inf

    @overload
    def beta(self, s: int, t: int) -> float: ...
    @overload
    def beta(self, s: Time, t: Time) -> Coefficient: ...
    def beta(self, s: Time, t: Time) -> Coefficient:
        """Variance of the noise added between s and t, s < t: 1 - alpha_bar(t) / alpha_bar(s)."""
        return 1 - self._at(t) / self._at(s)

    @overload
    def posterior_variance(self, s: int, t: int) -> float: ...
    @overload
    def posterior_variance(self, s: Time, t: Time) -> Coefficient: ...
    def posterior_variance(self, s: Time, t: Time) -> Coefficient:
        """Variance of q(x_s | x_t, x0), s < t (beta tilde of Ho et al. 2020, eq. 7, when s = t - 1); 0 at s = 0."""
        return self.beta(s, t) * (1 - self._at(s)) / (1 - self._at(t))

    def _at(self, t: Time) -> Coefficient:
        if isinstance(t, int):
            assert t >= 0, "-1 would mean T"
            return self._rows[t]
        if t.device not in self._copies:
            self._copies[t.device] = self.alpha_bar.to(t.device)
        return self._copies[t.device][t]

    @cached_property
    def _rows(self) -> list[float]:
        return self.alpha_bar.tolist()


def time_of_snr(schedule: NoiseSchedule, snr: float) -> int:
    """The t in 1..T whose signal-to-noise ratio alpha^2 / sigma^2 is nearest to snr on a logarithmic scale."""
    wanted = math.log(check.positive_number("snr", snr)) / 2
    return min(range(1, schedule.T + 1), key=lambda t: abs(schedule.half_log_snr(t) - wanted))


def first_fault(alpha_bar: Tensor) -> str:
    """The first invalid value of a table float64 `[T + 1]`, and a remedy, for an error message."""
    if alpha_bar[0] != 1:
        return f"{alpha_bar[0]:g} at time 0; put a 1 before the first step"
    wrong = ~((alpha_bar.diff() < 0) & (alpha_bar[1:] >= 0))
    t = int(wrong.nonzero()[0]) + 1
    before, after = alpha_bar[t - 1].item(), alpha_bar[t].item()
    if before == 0:
        return f"0 at t = {t - 1} already; take smaller betas or fewer num_timesteps, so that signal is left until T"
    return f"{before:g} and then {after:g} at t = {t}; take larger betas or fewer num_timesteps, so that noise is added"


def from_betas(betas: Tensor) -> NoiseSchedule:
    """The schedule with the given variances of single steps, the betas, float64 `[T]` in (0, 1]."""
    wrong = ~((betas > 0) & (betas <= 1))
    if bool(wrong.any()):
        t = int(wrong.nonzero()[0]) + 1
        beta = betas[t - 1].item()
        remedy = "smaller betas or more num_timesteps" if beta > 1 else "a gentler curve or fewer num_timesteps"
        raise ValueError(f"betas must be in (0, 1], got {beta:g} at t = {t}; take {remedy}")
    return NoiseSchedule(torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)]))


def from_alpha_bar(alpha_bar: Tensor, max_beta: float) -> NoiseSchedule:
    """The schedule of a curve float64 `[T + 1]`, with betas clipped to at most `max_beta`.

    If the curve ends at 0, no signal is left at T, and x0 cannot be computed from eps there. Nichol and Dhariwal 2021
    (section 3.2) clip at 0.999, which changes only the last step.
    """
    check.number("max_beta", max_beta, low=0, high=1)
    return from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))


def checked_timesteps(num_timesteps: int) -> int:
    check.positive_int("num_timesteps", num_timesteps)
    require_memory(64 * num_timesteps, f"a schedule of num_timesteps = {num_timesteps}")  # a few tables of float64
    return num_timesteps


def times_in_unit_interval(num_timesteps: int) -> Tensor:
    """float64 `[T + 1]`: t / T for t = 0..T."""
    return torch.linspace(0, 1, checked_timesteps(num_timesteps) + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Steps:
    """Times 0..T without noise levels, for a process that defines its degradation at each time. num_timesteps: T."""

    num_timesteps: int

    def __post_init__(self) -> None:
        checked_timesteps(self.num_timesteps)

    @property
    def T(self) -> int:
        return self.num_timesteps

    def __getattr__(self, name: str) -> NoReturn:
        """ValueError for alpha, sigma, snr and all other attributes of a `NoiseSchedule`."""
        if name.startswith("_"):
            raise AttributeError(name)
        raise ValueError(
            f"schedule=steps has times but no noise, so no {name}: for a process without noise (blur, mask, ...) "
            "use objective=x0, weight=uniform, loss=simple, timestep_spacing=uniform; with noise, schedule=cosine"
        )


Schedule = NoiseSchedule | Steps
