"""Colours for a grey picture: the mean over the channels is known (as ILVR, Choi et al. 2021, algorithm 1)."""

from dataclasses import dataclass

from ddpm.diffusion.samplers.replacement import Projection, channel_mean
from ddpm.tasks.base import Model, gaussian
from ddpm.tasks.restore import ResampledCompletion


@dataclass(frozen=True)
class Colorize(ResampledCompletion):
    """num_resamples = 1 is ILVR."""

    def projection(self, model: Model) -> Projection:
        gaussian(model, "colorize")
        if model.image_shape[0] == 1:
            raise ValueError(
                "task=colorize needs images with colours, and this model's have one channel: they are grey"
            )
        return channel_mean
