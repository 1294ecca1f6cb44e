"""Super-resolution: the mean of each block of pixels is known (similar to ILVR, Choi et al. 2021, algorithm 1)."""

from dataclasses import dataclass
from typing import Annotated

from ddpm.base import check
from ddpm.diffusion.samplers.replacement import BlockMean
from ddpm.tasks.base import Model, gaussian
from ddpm.tasks.restore import ResampledCompletion, demand_pixels


@dataclass(frozen=True)
class Superres(ResampledCompletion):
    """factor: side length of the blocks in pixels. Block means, unlike ILVR's bicubic filter, are a projection, so the
    block means of the result are exactly the given ones. With num_resamples = 1, this is ILVR.
    """

    factor: Annotated[int, check.integers(2)]

    def projection(self, model: Model) -> BlockMean:
        gaussian(model, "superres")
        demand_pixels(model, "superres")
        _, height, width = model.image_shape
        if height % self.factor or width % self.factor:
            check.fail("task.factor", self.factor, f"a divisor of the images' height and width, {height} x {width}")
        return BlockMean(self.factor)
