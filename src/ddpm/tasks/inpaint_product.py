"""Painting a part of an image anew by a product of distributions (Sohl-Dickstein et al. 2015, section 2.5)."""

from dataclasses import dataclass

from ddpm.diffusion.samplers.replacement import PixelProjection, posterior
from ddpm.tasks.base import Model
from ddpm.tasks.masks import known_pixels
from ddpm.tasks.restore import Completion


@dataclass(frozen=True)
class InpaintProduct(Completion):
    """Each step p(x_s | x_t) times r(x_s), which is all on the known pixels: they come from q(x_s | x_t, x0).

    So the known part is one trajectory of the forward process, in one pass downwards. The paper's code keeps it clean
    at all times, which is r(x_s) = r(x_0); a network of today has never seen clean pixels beside noisy ones.

    mask: the part that is painted anew, see `ddpm.tasks.masks`.
    """

    redraw = staticmethod(posterior)
    mask: str

    def projection(self, model: Model) -> PixelProjection:
        return PixelProjection(known_pixels(str(self.mask), *model.image_shape[1:]).to(model.device))
