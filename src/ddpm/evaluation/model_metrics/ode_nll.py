"""metric=nll_ode: the likelihood by the probability-flow ODE, a cross-check of the bound (Song et al. 2021)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Batch, Cond
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.exact.ode_likelihood import log_likelihood
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers.timestep_spacing import log_snr
from ddpm.evaluation.model_metric import Measurement, ModelRun
from ddpm.evaluation.model_metrics.images import ImagePass, OfLikelihood, mean_and_error
from ddpm.model.diffusion_model import DiffusionModel


@dataclass(frozen=True)
class ODELikelihood(OfLikelihood):
    """steps: of Heun's method, even in log-SNR from 1 to T. num_probes: probes to estimate the divergence.

    Uniform noise is added to spread pixels over their 8-bit bins. x0 is not clipped: the flow must have a gradient. The
    density of latents cannot be compared with bits of pixels; it is named latent_nll_ode.
    """

    steps: check.PositiveInt
    num_probes: check.PositiveInt
    idle: ClassVar = ("sampler", "timestep_spacing", "variance", "clip", "noise")

    def measure(self, run: ModelRun) -> Measurement:
        process = run.model.sampler.process
        if not isinstance(process, GaussianDiffusion) or process.schedule.snr(process.T) == 0:
            raise ValueError("metric=nll_ode needs process=gaussian and a schedule with some signal left at T")
        images = self.opened(run)
        flow = FlowPass(run.model, len(images), self.steps, self.num_probes).run(run.trainer, images)
        settings = f"ODELikelihood(steps={self.steps}, num_probes={self.num_probes})"
        name = "nll_ode" if run.model.codec.bounded else "latent_nll_ode"
        return self.measurement(images, {name: mean_and_error(flow.shared["bits"])}, [name], settings)


class FlowPass(ImagePass):
    def __init__(self, model: DiffusionModel, num_images: int, steps: int, num_probes: int) -> None:
        super().__init__(model, num_images, "ode", bits=torch.zeros(num_images, dtype=torch.float64))
        self.num_probes = num_probes
        schedule = model.sampler.process.schedule
        check.integer("steps", steps, low=1, high=schedule.T - 1)
        self.times = log_snr(schedule.T, steps + 1, schedule)[-2::-1]

    def take(self, batch: Batch, watch: Callable[[float], None]) -> None:
        with torch.inference_mode(False):
            images, draws = batch["image"].clone(), self.rng.at(0, batch["index"].clone())
            cond = {name: part.clone() for name, part in self.model.condition.of(batch).items()}
            uniform = draws.uniform("bin", tuple(images.shape[1:]))
            self.shared["bits"][batch["position"]] = self.of(images, uniform, draws, cond)

    def of(self, images: Tensor, uniform: Tensor, draws: Draws, cond: Cond) -> Tensor:
        """Bits per dimension, `[B]`. For pixels: of the density plus log2(127.5), because a bin is 2 / 255 wide."""
        model = self.model
        has_levels = model.codec.bounded
        x0 = model.encode(images + (uniform - 0.5) / 127.5 if has_levels else images)
        shape = tuple(x0.shape[1:])
        signs = [draws.normal(f"probe {k}", shape).sign() for k in range(self.num_probes)]
        denoiser = NetworkDenoiser(model.weights(model.predict_weights), model.objective)
        nats = log_likelihood(model.sampler.process, denoiser, x0, self.times, torch.stack(signs), cond)
        return -nats / x0[0].numel() / math.log(2) + (math.log2(127.5) if has_levels else 0)
