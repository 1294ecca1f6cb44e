"""Errors of the rules in `heun`, `pndm`, `dpm_solver_3m` and `unipc` on data with a known flow. Needs no checkpoint.

    python -m benchmarks.sampler_rules

The tables hold the root mean squared distance of the sample from the end of the exact flow, for 32 draws of x_T and T =
1000: first single cases, then geometric means over four targets, two schedules, four spacings and steps, relative to
the first column, with the worst of the ratios in brackets.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache, partial

import torch

from ddpm.base.rng import Rng
from ddpm.diffusion.exact.oracle import GaussianOracle, MixtureOracle, OracleDenoiser, ring
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.samplers.base import Sampler
from ddpm.diffusion.samplers.dpm_solver import DPMSolver, DPMSolver3M, PublishedDPMSolver3M
from ddpm.diffusion.samplers.edm import Heun
from ddpm.diffusion.samplers.pndm import PNDM
from ddpm.diffusion.samplers.unipc import UniPC
from ddpm.diffusion.schedules.betas import linear
from ddpm.diffusion.schedules.curves import cosine
from ddpm.evaluation.model_metrics.sampler_error import exact_flow

IDS = torch.arange(32)
TARGETS = {
    "N(0, 1)": GaussianOracle([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]),
    "N(0, 0.25)": GaussianOracle([0.0, 0.0], [[0.25, 0.0], [0.0, 0.25]]),
    "two Gaussians": MixtureOracle([[-0.6, 0.2], [0.5, 0.4]], 0.2),
    "ring": ring(8, 0.75, 0.1),
}
SCHEDULES = {"linear": linear(1000, 1e-4, 0.02, rescale=True), "cosine": cosine(1000, 0.008, 0.999)}
SPACINGS = {
    "uniform": timestep_spacing.uniform,
    "quadratic": timestep_spacing.quadratic,
    "log_snr": timestep_spacing.log_snr,
    "rho": partial(timestep_spacing.rho, rho=7, sigma_max=80),
}
STEPS = (6, 8, 10, 15, 24, 40, 80)
EDM = partial(Heun, churn=0.0, churn_low=0.0, churn_high=math.inf, noise_scale=1.0)
DEFAULT = {"largest_growth": 1.25, "largest_step": 0.75}
SAMPLERS: dict[str, dict[str, Callable[..., Sampler]]] = {
    "heun, by euler_above": {
        "0 (before)": EDM,
        "100 (default)": partial(EDM, euler_above=100.0),
        "10": partial(EDM, euler_above=10.0),
        "inf": partial(EDM, euler_above=math.inf),
    },
    "pndm, by euler_above": {
        "0 (before)": PNDM,
        "10 (default)": partial(PNDM, euler_above=10.0),
        "100": partial(PNDM, euler_above=100.0),
        "inf": partial(PNDM, euler_above=math.inf),
    },
    "multistep of third order": {
        "dpm_solver (2M)": DPMSolver,
        "3m (before)": DPMSolver3M,
        "3m (default)": partial(DPMSolver3M, **DEFAULT),
        "3m_published": partial(PublishedDPMSolver3M, lower_order_final=False),
        "3m_published, lower_order_final": partial(PublishedDPMSolver3M, lower_order_final=True),
        "unipc 3 (before)": partial(UniPC, predictor_order=3),
        "unipc 3, lower_order_final (default)": partial(UniPC, predictor_order=3, lower_order_final=True),
    },
}
SHOWN = [("linear", "rho", 6), ("linear", "rho", 15), ("cosine", "uniform", 10), ("linear", "uniform", 24)]


@cache
def flow(target: str, schedule: str) -> tuple[torch.Tensor, torch.Tensor]:
    """x_T and the sample at the end of the exact flow from it, float64 `[32, *shape]`."""
    oracle, table = TARGETS[target], SCHEDULES[schedule]
    x = GaussianDiffusion(table).prior(oracle.shape, Rng(0, "prior").at(0, IDS)).double()
    return x, OracleDenoiser(oracle, table)(exact_flow(oracle, table, x, table.T, 1), 1, {}).x0


def error(make: Callable[..., Sampler], target: str, schedule: str, spacing: str, steps: int) -> float:
    process = GaussianDiffusion(SCHEDULES[schedule])
    x, end = flow(target, schedule)
    sampler = make(process=process, timestep_spacing=SPACINGS[spacing], steps=steps)
    *_, last = sampler.trajectory(OracleDenoiser(TARGETS[target], process.schedule), x, Rng(0, "sample"), IDS)
    return float((last.x_t - end).flatten(1).square().sum(1).mean().sqrt())


def show(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    for title, samplers in SAMPLERS.items():
        print(f"\n{title}\n")
        show("schedule, spacing, steps", "data", *samplers)
        show(*["---"] * (len(samplers) + 2))
        for (schedule, spacing, steps), target in itertools.product(SHOWN, TARGETS):
            errors = (error(each, target, schedule, spacing, steps) for each in samplers.values())
            show(f"{schedule}, {spacing}, {steps}", target, *(f"{each:.2g}" for each in errors))
        for spacing in SPACINGS:
            cases = list(itertools.product(TARGETS, SCHEDULES, [spacing], STEPS))
            logs = [[math.log(error(each, *case)) for case in cases] for each in samplers.values()]
            ratios = [[one - first for one, first in zip(each, logs[0], strict=True)] for each in logs]
            summary = (f"{math.exp(sum(each) / len(each)):.2g} ({math.exp(max(each)):.2g})" for each in ratios)
            show(f"all, {spacing}", "all", *summary)


if __name__ == "__main__":
    main()
