"""Details for a coarse picture: the mean of each block of pixels is known (as ILVR, Choi et al. 2021, algorithm 1)."""

from dataclasses import dataclass

from ddpm.base import check
from ddpm.diffusion.replacement import BlockMean, independent
from ddpm.tasks.base import Model, Outcome, check_images, gaussian, refuse_latents
from ddpm.tasks.restore import check_resampling, complete_images, path_of_times


@dataclass(frozen=True)
class Superres:
    """factor: side of the blocks. In place of ILVR's bicubic filter, means of blocks are a projection, so that the
    coarse picture of the result is exactly the given one.

    jump_length, num_resamples: as RePaint's, see `ddpm.tasks.inpaint`; num_resamples = 1 is ILVR, without.
    """

    images: list[int] | int
    split: str
    factor: int
    num_completions: int
    jump_length: int
    num_resamples: int

    def __post_init__(self) -> None:
        check_images(self.images)
        check.integer("task.factor", self.factor, low=2)
        check.positive_int("task.num_completions", self.num_completions)
        check_resampling(self.jump_length, self.num_resamples)

    def __call__(self, model: Model) -> Outcome:
        refuse_latents(model, "superres")
        gaussian(model, "superres")
        _, height, width = model.image_shape
        if height % self.factor or width % self.factor:
            check.fail("task.factor", self.factor, f"a divisor of the images' height and width, {height} x {width}")
        times = path_of_times(model, self.jump_length, self.num_resamples)
        numbers, images = model.real(self.images, self.split)
        means = BlockMean(self.factor)
        return complete_images(model, "superres", numbers, images, means, independent, times, self.num_completions)
