"""Inpainting by a product of distributions (Sohl-Dickstein et al. 2015, section 2.5)."""

from dataclasses import dataclass

from ddpm.diffusion.samplers.replacement import PixelProjection, posterior
from ddpm.tasks.base import Model
from ddpm.tasks.restore import Completion, mask_projection


@dataclass(frozen=True)
class InpaintProduct(Completion):
    """Each step samples p(x_s | x_t) r(x_s), where r fixes the known pixels: they are drawn from q(x_s | x_t, x0).

    The known part is therefore one trajectory of the forward process. The paper's code keeps known pixels clean at all
    times, r(x_s) = r(x_0). Current networks are not trained on clean pixels beside noisy ones.

    mask: the unknown part, see `ddpm.tasks.masks`.
    """

    redraw = staticmethod(posterior)
    mask: str

    def projection(self, model: Model) -> PixelProjection:
        return mask_projection(model, self.mask)
