"""Colorization: the mean over channels is known (similar to ILVR, Choi et al. 2021, algorithm 1)."""

from dataclasses import dataclass

from ddpm.diffusion.samplers.replacement import Projection, channel_mean
from ddpm.tasks.base import Model, gaussian
from ddpm.tasks.restore import ResampledCompletion, demand_pixels


@dataclass(frozen=True)
class Colorize(ResampledCompletion):
    """With num_resamples = 1, this is ILVR."""

    def projection(self, model: Model) -> Projection:
        gaussian(model, "colorize")
        demand_pixels(model, "colorize")
        if model.image_shape[0] == 1:
            raise ValueError("task=colorize needs colour images, but this model generates grey images")
        return channel_mean
