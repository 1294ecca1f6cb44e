"""Cascade: small images of one model are upsampled by another (Ho et al. 2022, "Cascaded Diffusion Models")."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ddpm.base import check
from ddpm.diffusion.conditions.base import ClassLabel
from ddpm.tasks.base import Model, Outcome
from ddpm.tasks.sheet import sheet
from ddpm.tasks.upsample import agreement, disagreement, enlarge, refuse_without_low_res

NUM_ROWS = 8  # if the base model has no classes


@dataclass(frozen=True)
class Cascade:
    """base: checkpoint of the model of small images. It uses its own sampler and, if it has classes, generates all.

    num_columns: images per class. The small images equal those of `sample.py ckpt=BASE class=all` with the same seed.
    (The paper adds noise to the small images in training and sampling, to reduce the effect of errors of the base
    model. This is not implemented.)
    """

    base: str | None
    num_columns: check.PositiveInt

    def __post_init__(self) -> None:
        if self.base is None:
            check.fail("task.base", None, "the checkpoint of a model of small images, as task.base=runs/.../last.ckpt")
        check.fields(self, "task.")

    def __call__(self, model: Model) -> Outcome:
        condition = refuse_without_low_res(model, "cascade")
        base = model.another(str(self.base))
        base_condition, size = base.condition, list(condition.small_shape(model.image_shape))
        if list(base.image_shape) != size:
            check.fail("task.base", self.base, f"a model of images {size}, but it generates {list(base.image_shape)}")
        if base_condition.needs_images:
            check.fail("task.base", self.base, f"a model that needs no images, but it has {base_condition}")
        named = isinstance(base_condition, ClassLabel)
        names = [*map(base_condition.name, range(base_condition.num_classes))] if named else [""] * NUM_ROWS
        num_rows = len(names)
        ids = torch.arange(num_rows * self.num_columns, device=model.device)
        small = base.sampled(base.prior(ids), ids, base.T, cond=base_condition.default_conditions(ids)).clamp(-1, 1)
        large = enlarge(model, small.to(model.device), ids)
        squares = F.interpolate(small, large.shape[2:], mode="nearest")
        pairs = torch.stack([squares, large], dim=1).unflatten(0, (-1, num_rows))  # [columns, rows, 2, C, H, W]
        sizes = [" x ".join(map(str, each.shape[2:])) for each in (small, large)]
        cells = [list(pairs[:, row].flatten(0, 1)) for row in range(num_rows)]
        title = f"small images of one model, {condition.factor} times as large by another"
        drawn = sheet(cells, names, sizes * self.num_columns, title)
        off = disagreement(condition, large, small)
        figures = {"factor": condition.factor, "disagreement_levels": off}
        return Outcome({"cascade": drawn}, {"small": small, "large": large}, figures, [agreement(off)])
