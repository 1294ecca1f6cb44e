"""Painting a part of an image anew by a product of distributions (Sohl-Dickstein et al. 2015, section 2.5)."""

from dataclasses import dataclass

from ddpm.base import check
from ddpm.diffusion.replacement import PixelProjection, posterior
from ddpm.tasks.base import Model, Outcome, check_images, refuse_latents
from ddpm.tasks.masks import known_pixels
from ddpm.tasks.restore import complete_images, path_of_times


@dataclass(frozen=True)
class InpaintProduct:
    """Each step p(x_s | x_t) times r(x_s), which is all on the known pixels: they come from q(x_s | x_t, x0).

    So the known part is one trajectory of the forward process, in one pass downwards. The paper's code keeps it clean
    at all times, which is r(x_s) = r(x_0); a network of today has never seen clean pixels beside noisy ones.

    mask: the part that is painted anew, see `ddpm.tasks.masks`.
    """

    images: list[int] | int
    split: str
    mask: str
    num_completions: int

    def __post_init__(self) -> None:
        check_images(self.images)
        check.positive_int("task.num_completions", self.num_completions)

    def __call__(self, model: Model) -> Outcome:
        refuse_latents(model, "inpaint_product")
        known = known_pixels(str(self.mask), *model.image_shape[1:]).to(model.device)
        numbers, images = model.real(self.images, self.split)
        times, num = path_of_times(model, 1, 1), self.num_completions
        return complete_images(model, "inpaint_product", numbers, images, PixelProjection(known), posterior, times, num)
