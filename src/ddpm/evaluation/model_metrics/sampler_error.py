"""metric=sampler_error: the error of samplers over steps, on data with a known ideal denoiser. It needs no checkpoint.

For a deterministic sampler, the error is the distance from the exact flow from the same x_T, at the last time before 0:
the step from there is a DDIM step in all samplers, and its error does not fall with the steps. For a stochastic sampler
it is the distance of distributions: exact for Gaussian data, where sampling is affine; else estimated from samples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp
from torch import Tensor

from ddpm.base import check
from ddpm.base.plots import set_apart
from ddpm.base.progress import ProgressDisplay
from ddpm.base.rng import Rng
from ddpm.config import wiring
from ddpm.diffusion.exact.affine import Normal, output_distribution, wasserstein
from ddpm.diffusion.exact.inversion import draws_noise
from ddpm.diffusion.exact.oracle import GaussianOracle, Oracle, OracleDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers.base import Sampler, State, describe_setting
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.evaluation.curves import logarithmic, look
from ddpm.evaluation.model_metric import Measurement, ModelRun
from ddpm.metrics.protocol import short_digest
from ddpm.metrics.score import Estimate

NUM_PATHS = 64
NUM_SAMPLES = 20_000
NUM_DIRECTIONS = 32
TOLERANCE = 1e-10  # of the solver of the exact flow


@dataclass(frozen=True)
class Convergence:
    """evaluations, errors: of one sampler, for each number of steps. floor: the statistical error of `errors`, or 0."""

    name: str
    kind: str
    stated: int | None
    evaluations: tuple[int, ...]
    errors: tuple[float, ...]
    floor: float

    @property
    def fitted(self) -> float | None:
        """Minus the slope of log error over log evaluations, where the error is above three times the floor."""
        pairs = zip(self.evaluations, self.errors, strict=True)
        points = [(math.log(n), math.log(e)) for n, e in pairs if e > max(3 * self.floor, 1e-12)]
        if len(points) < 3:
            return None
        x, y = (torch.tensor(each, dtype=torch.float64) for each in zip(*points, strict=True))
        x = x - x.mean()
        return -float((x * (y - y.mean())).sum() / x.square().sum())


@dataclass(frozen=True)
class SamplerError:
    """samplers: by name, without process and steps. steps: numbers of steps to compare, as [40, 80, 160, 320].

    schedule: used unless the command chooses one; it has many times, so that rounding of times is negligible.
    """

    needs_checkpoint: ClassVar[bool] = False
    idle: ClassVar = (
        *("noise", "process", "sampler", "timestep_spacing", "variance", "clip", "guidance", "codec", "text", "data"),
        *("weights", "batch_size"),
    )

    samplers: Mapping[str, Callable[..., Sampler]]
    steps: Sequence[check.PositiveInt]
    schedule: NoiseSchedule
    seed: int

    def __post_init__(self) -> None:
        check.fields(self)
        if len(self.steps) < 3 or sorted(set(self.steps)) != list(self.steps):
            check.fail("steps", list(self.steps), "rising, at least three, as [40, 80, 160]")

    def measure(self, run: ModelRun) -> Measurement:
        if run.ckpt is not None or not run.config.get("model"):
            raise ValueError(
                "metric=sampler_error measures samplers on data with a known denoiser: leave ckpt out and choose "
                "model=oracle_gaussian, oracle_mixture or oracle_dataset"
            )
        oracle = wiring.instantiate(run.config.model, "model")
        if not hasattr(oracle, "x0"):
            raise ValueError(f"metric=sampler_error needs model=oracle_..., got {type(oracle).__name__}")
        schedule = self.schedule
        if run.config.get("schedule"):
            schedule = wiring.instantiate(run.config.schedule, "schedule")
        comparison = OracleComparison(oracle, schedule, self.seed)
        place = "metric.sampler_error.samplers."
        samplers = {
            name: [wiring.complete(factory, place + name, process=comparison.process, steps=n) for n in self.steps]
            for name, factory in self.samplers.items()
        }
        found = []
        with ProgressDisplay("sampler", len(samplers)) as display:
            for number, (name, theirs) in enumerate(samplers.items(), 1):
                found.append(comparison.convergence(name, theirs))
                if display.is_due(number):
                    display.show(number, name)
        values = {f"order_{each.name}": Estimate(each.fitted) for each in found if each.fitted is not None}
        values |= {f"error_{each.name}": Estimate(each.errors[-1]) for each in found}
        common = f"steps={list(self.steps)}, seed={self.seed}, schedule={short_digest(schedule.alpha_bar.tolist())}"
        settings = {name: describe_setting(self.samplers[name.partition("_")[2]]) for name in values}
        scores = {name: f"SamplerError({setting}, {common})" for name, setting in settings.items()}
        protocol = {"num_generated": NUM_PATHS, "scores": scores}
        tables = {"samplers": convergence_rows(found, self.steps)}
        return Measurement(values, protocol, {"samplers": draw_errors(found)}, error_lines(found, self.steps), tables)


@dataclass(frozen=True)
class OracleComparison:
    oracle: Oracle
    schedule: NoiseSchedule
    seed: int

    @property
    def process(self) -> GaussianDiffusion:
        return GaussianDiffusion(self.schedule)

    @property
    def denoiser(self) -> OracleDenoiser:
        return OracleDenoiser(self.oracle, self.schedule)

    def convergence(self, name: str, samplers: Sequence[Sampler]) -> Convergence:
        """samplers: one sampler with rising numbers of steps."""
        floor = 0.0
        if not draws_noise(samplers[0]):
            kind, error = "path", self.path_error
        elif isinstance(self.oracle, GaussianOracle):
            kind, error = "distribution", self.distribution_error
        else:
            kind, error = "samples", self.sample_error
            floor = self.sample_distance(self.truth(0), self.truth(1))
        evaluations = tuple(sampler.evaluations() for sampler in samplers)
        return Convergence(name, kind, samplers[0].order, evaluations, tuple(map(error, samplers)), floor)

    def states(self, sampler: Sampler, num: int) -> list[State]:
        rng = Rng(self.seed, "sample")
        return list(sampler.trajectory(self.denoiser, self.start(num), rng, torch.arange(num)))

    def start(self, num: int) -> Tensor:
        return self.process.prior(self.oracle.shape, Rng(self.seed, "prior").at(0, torch.arange(num))).double()

    def path_error(self, sampler: Sampler) -> float:
        """Root mean squared distance from the exact flow."""
        *_, last, _ = self.states(sampler, NUM_PATHS)
        truth = exact_flow(self.oracle, self.schedule, self.start(NUM_PATHS), self.process.T, last.t)
        return float((last.x_t - truth).flatten(1).square().sum(1).mean().sqrt())

    def distribution_error(self, sampler: Sampler) -> float:
        assert isinstance(self.oracle, GaussianOracle)
        truth = Normal(torch.tensor(self.oracle.mean).double(), torch.tensor(self.oracle.covariance).double())
        return wasserstein(output_distribution(sampler, self.denoiser, self.oracle.shape), truth)

    def sample_error(self, sampler: Sampler) -> float:
        return self.sample_distance(self.states(sampler, NUM_SAMPLES)[-1].x_t, self.truth(0))

    def truth(self, seed: int) -> Tensor:
        return self.oracle.draw(Rng(seed, "truth").at(0, torch.arange(NUM_SAMPLES)))

    def sample_distance(self, one: Tensor, other: Tensor) -> float:
        """The sliced 2-Wasserstein distance (Bonneel et al. 2015): the root mean square over random directions."""
        d = one[0].numel()
        directions = Rng(self.seed, "directions").at(0, torch.arange(NUM_DIRECTIONS)).normal("direction", (d,)).double()
        directions = directions / directions.norm(dim=1, keepdim=True)
        sorted_one, sorted_other = ((x.flatten(1) @ directions.T).sort(dim=0).values for x in (one, other))
        return float((sorted_one - sorted_other).square().mean().sqrt())


def exact_flow(oracle: Oracle, schedule: NoiseSchedule, x_t: Tensor, t: int, s: int) -> Tensor:
    """x_s of the oracle's probability-flow ODE from x_t, float64 `[B, *shape]`, for s >= 1.

    In y = x / alpha and u = log(sigma / alpha) the ODE is dy/du = y - x0 for any schedule. It is solved by the method
    of Dormand and Prince of eighth order.
    """
    start, end = (-schedule.half_log_snr(time) for time in (t, s))
    if not math.isfinite(start):
        raise ValueError("metric=sampler_error needs a schedule with some signal left at T, where the flow starts")

    def slope(u: float, flat: np.ndarray) -> np.ndarray:
        y = torch.from_numpy(flat).view_as(x_t)
        return (y - oracle.x0(y, 1.0, math.exp(u))).flatten().numpy()

    y = (x_t / schedule.alpha(t)).flatten().numpy()
    found = solve_ivp(slope, (start, end), y, method="DOP853", rtol=TOLERANCE, atol=TOLERANCE, t_eval=[end])
    return torch.from_numpy(found.y[:, -1]).view_as(x_t) * schedule.alpha(s)


KINDS = {
    "path": "from the exact flow",
    "distribution": "between distributions, exact",
    "samples": f"between distributions, of {NUM_SAMPLES:,} samples",
}


def error_lines(found: list[Convergence], steps: Sequence[int]) -> list[str]:
    rows = [f"{'error with steps':18}" + "".join(f"{n:>10}" for n in steps) + "   order  stated  error"]
    for each in found:
        errors = "".join(f"{error:10.2e}" for error in each.errors)
        fitted = "-" if each.fitted is None else f"{each.fitted:.2f}"
        stated = "-" if each.stated is None else str(each.stated)
        chance = f" (chance: {each.floor:.1e})" if each.floor else ""
        rows.append(f"{each.name:18}{errors}{fitted:>8}{stated:>8}  {KINDS[each.kind]}{chance}")
    return rows


def convergence_rows(found: list[Convergence], steps: Sequence[int]) -> list[dict[str, Any]]:
    rows = []
    for each in found:
        about = {"kind": each.kind, "fitted_order": each.fitted, "stated_order": each.stated}
        for number, evaluations, error in zip(steps, each.evaluations, each.errors, strict=True):
            rows.append({"sampler": each.name, "steps": number, "evaluations": evaluations, "error": error, **about})
    return rows


def draw_errors(found: list[Convergence]) -> Figure:
    """A panel for deterministic samplers and one for stochastic samplers. Slopes are orders of convergence."""
    panels = {"without noise": ("path",), "with noise": ("distribution", "samples")}
    units = {"without noise": "RMS distance from the exact flow", "with noise": "Wasserstein distance from the data"}
    shown = {title: kinds for title, kinds in panels.items() if any(each.kind in kinds for each in found)}
    figure = Figure(figsize=(5.5 * len(shown), 5.6), layout="constrained")
    for number, (title, kinds) in enumerate(shown.items(), 1):
        axes = figure.add_subplot(1, len(shown), number)
        for place, each in enumerate(each for each in found if each.kind in kinds):
            fitted = "" if each.fitted is None else f"  {each.fitted:.2f}"
            stated = "" if each.stated is None else f" ({each.stated})"
            label = f"{each.name}{fitted}{stated}"
            axes.plot(each.evaluations, each.errors, label=label, **look(place))
        floors = [each.floor for each in found if each.kind in kinds and each.floor]
        if floors:
            axes.axhline(max(floors), color="grey", linestyle="--", linewidth=1, label="chance")
        axes.set(yscale="log", xlabel="network evaluations", ylabel=f"{units[title]}, in units of x", title=title)
        logarithmic(axes.xaxis)
        set_apart(axes)
        axes.grid(alpha=0.3, which="both")
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}
        axes.legend(fontsize="small", title="sampler, fitted order (stated)", title_fontsize="small", **below)
    return figure
