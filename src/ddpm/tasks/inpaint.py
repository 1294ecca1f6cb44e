"""Painting a part of an image anew: RePaint (Lugmayr et al. 2022, algorithm 1)."""

from dataclasses import dataclass

from ddpm.base import check
from ddpm.diffusion.replacement import PixelProjection, independent
from ddpm.tasks.base import Model, Outcome, check_images, refuse_latents
from ddpm.tasks.masks import known_pixels
from ddpm.tasks.restore import check_resampling, complete_images, path_of_times


@dataclass(frozen=True)
class Inpaint:
    """mask: the part that is painted anew, see `ddpm.tasks.masks`.

    jump_length, num_resamples: after so many steps of the sampler, back up as many, until these have been made
    num_resamples times; j = 10 and r = 10 in the paper, with 250 steps. 1 is no resampling.
    """

    images: list[int] | int
    split: str
    mask: str
    num_completions: int
    jump_length: int
    num_resamples: int

    def __post_init__(self) -> None:
        check_images(self.images)
        check.positive_int("task.num_completions", self.num_completions)
        check_resampling(self.jump_length, self.num_resamples)

    def __call__(self, model: Model) -> Outcome:
        refuse_latents(model, "inpaint")
        known = known_pixels(str(self.mask), *model.image_shape[1:]).to(model.device)
        times = path_of_times(model, self.jump_length, self.num_resamples)
        numbers, images = model.real(self.images, self.split)
        return complete_images(
            model, "inpaint", numbers, images, PixelProjection(known), independent, times, self.num_completions
        )
