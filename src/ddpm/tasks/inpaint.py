"""Inpainting with RePaint (Lugmayr et al. 2022, algorithm 1)."""

from dataclasses import dataclass

from ddpm.diffusion.samplers.replacement import PixelProjection
from ddpm.tasks.base import Model
from ddpm.tasks.restore import ResampledCompletion, mask_projection


@dataclass(frozen=True)
class Inpaint(ResampledCompletion):
    """mask: the unknown part, see `ddpm.tasks.masks`."""

    mask: str

    def projection(self, model: Model) -> PixelProjection:
        return mask_projection(model, self.mask)
