"""metric=rate_distortion: progressive lossy compression (Ho et al. 2020, section 4.3, figure 5)."""

from dataclasses import dataclass
from typing import Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ddpm.base import check
from ddpm.evaluation.model_metric import Measurement, ModelRun
from ddpm.evaluation.model_metrics.bound import bound_terms
from ddpm.evaluation.model_metrics.images import OfLikelihood
from ddpm.metrics.score import Estimate

LEVELS = 127.5  # 8-bit levels per unit of [-1, 1]


@dataclass(frozen=True)
class RateDistortion(OfLikelihood):
    """The rate at t is the sum of the terms from T down to t, in bits per dimension. The distortion is the root mean
    squared error of x0 predicted at t, in 8-bit levels. variance: small, large, learned or optimal."""

    variance: Literal["optimal", "small", "large", "learned"]

    def measure(self, run: ModelRun) -> Measurement:
        if not run.model.codec.bounded:
            raise ValueError(
                "metric=rate_distortion counts bits of 8-bit pixels, which latents have not: use metric=nll"
            )
        images = self.opened(run)
        terms = bound_terms(run.model, images, run.trainer)
        check.one_of("variance", self.variance, terms.means)
        mean = terms.means[self.variance]
        rate, distortion = rate_distortion_curve(mean, terms.distortion)
        values = {"rate": rate[-1], "distortion_bits": mean[1], "rmse": distortion[-1]}
        estimates = {name: Estimate(value.item()) for name, value in values.items()}
        settings = f"RateDistortion(variance={self.variance})"
        pictures = {"rate_distortion": draw_rate_distortion(rate, distortion)}
        line = f"rate {rate[-1]:.3f} bits/dim, then {mean[1]:.3f} for the pixels; "
        line += f"RMSE {distortion[-1]:.2f} of 255 at t = 1"
        rows = [
            {"t": len(rate) - k, "rate_bits_per_dim": f"{bits:.8g}", "rmse_of_255": f"{rmse:.8g}"}
            for k, (bits, rmse) in enumerate(zip(rate, distortion, strict=True))
        ]
        beside = {"pictures": pictures, "lines": [line], "tables": {"rate_distortion": rows}}
        return self.measurement(images, estimates, values, settings, **beside)


def rate_distortion_curve(mean: Tensor, squared_error: Tensor) -> tuple[Tensor, Tensor]:
    """Rate and distortion `[T]` of a receiver that has x_T, x_(T-1), ..., x_1. mean, squared_error: `[T + 1]` by t.

    The rate of x_t is L_T plus the terms of the steps down to t. L_0, the rate of the exact pixels, is not included.
    """
    steps = torch.cat([mean[:1], mean[2:].flip(0)])  # L_T, then L_(T-1) .. L_1
    return steps.cumsum(0), squared_error[1:].flip(0).sqrt() * LEVELS


def draw_rate_distortion(rate: Tensor, distortion: Tensor) -> Figure:
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    one, two, three = figure.subplots(1, 3)
    steps = [k / len(rate) for k in range(len(rate))]
    one.plot(steps, distortion)
    one.set(xlabel="reverse steps (T - t) / T", ylabel="distortion (RMSE of 0..255)")
    two.plot(steps, rate)
    two.set(xlabel="reverse steps (T - t) / T", ylabel="rate (bits/dim)")
    three.plot(rate, distortion)
    three.set(xlabel="rate (bits/dim)", ylabel="distortion (RMSE of 0..255)")
    for axes in (one, two, three):
        axes.grid(alpha=0.3)
    return figure
