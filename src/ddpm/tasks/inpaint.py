"""Inpainting with RePaint (Lugmayr et al. 2022, algorithm 1), or by a model with cond=masked (Rombach et al. 2022)."""

from dataclasses import dataclass

import torch

from ddpm.diffusion.conditions.masked import Masked
from ddpm.diffusion.samplers.replacement import PixelProjection
from ddpm.tasks.base import Model, Outcome, num_steps
from ddpm.tasks.masks import known_pixels
from ddpm.tasks.restore import ResampledCompletion, completion_ids, mask_projection, outcome


@dataclass(frozen=True)
class Inpaint(ResampledCompletion):
    """mask: the unknown part, see `ddpm.tasks.masks`."""

    mask: str

    def projection(self, model: Model) -> PixelProjection:
        return mask_projection(model, self.mask)

    def __call__(self, model: Model) -> Outcome:
        """A model with cond=masked samples given the mask, without resampling; its known pixels are pasted."""
        if not isinstance(model.condition, Masked):
            return super().__call__(model)
        if self.jump_length is not None or self.num_resamples not in (None, 1):
            given = "jump_length" if self.jump_length is not None else "num_resamples"
            raise ValueError(f"task.{given} has no effect on a model with cond=masked, not resampled; leave it out")
        known = known_pixels(str(self.mask), *model.image_shape[1:])
        numbers, images = self.real(model)
        hole = (1 - known).to(model.device).expand(len(images), 1, -1, -1)
        cond = model.condition.of({"image": images, "hole": hole})
        cond = {name: value.repeat_interleave(self.num_completions, dim=0) for name, value in cond.items()}
        ids = completion_ids(model, numbers, self.num_completions)
        drawn = model.sampled(model.prior(ids), ids, model.T, cond=cond).unflatten(0, (len(numbers), -1))
        images = images.cpu()
        completed = torch.where(known > 0, images[:, None], drawn)
        steps = num_steps(model.sampler, model.T)
        return outcome("inpaint", numbers, images, images * known, completed, steps, 0.0, "the known part is pasted")
