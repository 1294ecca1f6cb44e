"""Colours for a grey picture: the mean over the channels is known (as ILVR, Choi et al. 2021, algorithm 1)."""

from dataclasses import dataclass

from ddpm.base import check
from ddpm.diffusion.replacement import channel_mean, independent
from ddpm.tasks.base import Model, Outcome, check_images, gaussian, refuse_latents
from ddpm.tasks.restore import check_resampling, complete_images, path_of_times


@dataclass(frozen=True)
class Colorize:
    """jump_length, num_resamples: as RePaint's, see `ddpm.tasks.inpaint`; num_resamples = 1 is ILVR, without."""

    images: list[int] | int
    split: str
    num_completions: int
    jump_length: int
    num_resamples: int

    def __post_init__(self) -> None:
        check_images(self.images)
        check.positive_int("task.num_completions", self.num_completions)
        check_resampling(self.jump_length, self.num_resamples)

    def __call__(self, model: Model) -> Outcome:
        refuse_latents(model, "colorize")
        gaussian(model, "colorize")
        if model.image_shape[0] == 1:
            raise ValueError(
                "task=colorize needs images with colours, and this model's have one channel: they are grey"
            )
        times = path_of_times(model, self.jump_length, self.num_resamples)
        numbers, images = model.real(self.images, self.split)
        return complete_images(
            model, "colorize", numbers, images, channel_mean, independent, times, self.num_completions
        )
