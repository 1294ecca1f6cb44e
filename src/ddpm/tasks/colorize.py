"""Colours for a grey picture: the mean over the channels is known (as ILVR, Choi et al. 2021, algorithm 1)."""

from dataclasses import dataclass

from ddpm.base import check
from ddpm.diffusion.known_part import afresh, channel_mean
from ddpm.tasks.base import Model, Outcome, checked_images, gaussian, refuse_latents
from ddpm.tasks.restore import check_resampling, path_of_times, restored


@dataclass(frozen=True)
class Colorize:
    """jump_length, num_resamples: as RePaint's, see `ddpm.tasks.inpaint`; num_resamples = 1 is ILVR, without."""

    images: list[int] | int
    split: str
    num_completions: int
    jump_length: int
    num_resamples: int

    def __post_init__(self) -> None:
        checked_images(self.images)
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
        return restored(model, "colorize", numbers, images, channel_mean, afresh, times, self.num_completions)
