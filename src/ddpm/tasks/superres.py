"""Details for a coarse picture: the mean of each block of pixels is known (as ILVR, Choi et al. 2021, algorithm 1)."""

from dataclasses import dataclass

from ddpm.base import check
from ddpm.diffusion.samplers.replacement import BlockMean
from ddpm.tasks.base import Model, gaussian
from ddpm.tasks.restore import ResampledCompletion


@dataclass(frozen=True)
class Superres(ResampledCompletion):
    """factor: side of the blocks. In place of ILVR's bicubic filter, means of blocks are a projection, so that the
    coarse picture of the result is exactly the given one. num_resamples = 1 is ILVR.
    """

    factor: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check.integer("task.factor", self.factor, low=2)

    def projection(self, model: Model) -> BlockMean:
        gaussian(model, "superres")
        _, height, width = model.image_shape
        if height % self.factor or width % self.factor:
            check.fail("task.factor", self.factor, f"a divisor of the images' height and width, {height} x {width}")
        return BlockMean(self.factor)
