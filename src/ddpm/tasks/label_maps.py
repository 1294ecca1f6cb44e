"""Generate images from the label images of real images with a model with cond=semantic (Rombach et al. 2022)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Rng
from ddpm.diffusion.conditions.semantic import LABEL_MAP, Semantic
from ddpm.tasks.base import ImageTask, Model, Outcome, num_steps
from ddpm.tasks.restore import completion_ids
from ddpm.tasks.sheet import sheet


@dataclass(frozen=True)
class LabelMaps(ImageTask):
    """num_samples: samples per label image."""

    num_samples: check.PositiveInt

    def __call__(self, model: Model) -> Outcome:
        if not isinstance(model.condition, Semantic):
            name = type(model.condition).__name__
            raise ValueError(f"task=label_maps needs a model with cond=semantic, but this has {name}")
        numbers, batch = self.examples(model)
        cond = model.condition.of(batch)
        ids = completion_ids(model, numbers, self.num_samples)
        repeated = {name: value.repeat_interleave(self.num_samples, dim=0) for name, value in cond.items()}
        drawn = model.sampled(model.prior(ids), ids, model.T, cond=repeated).unflatten(0, (len(numbers), -1))
        images, labels = batch["image"].cpu(), cond[LABEL_MAP].cpu()
        colours = in_colours(labels, images.shape[1])
        steps = num_steps(model.sampler, model.T)
        picture = sheet(
            [[colours[i], *drawn[i], images[i]] for i in range(len(numbers))],
            rows=[f"image {number}" for number in numbers],
            columns=["labels", *(f"{k + 1}" for k in range(self.num_samples)), "original"],
            title=f"samples of label images, {steps} steps",
        )
        arrays = {"originals": images, "labels": labels, "samples": drawn}
        return Outcome({"label_maps": picture}, arrays, {"images": numbers}, [f"{steps} steps"])


def in_colours(labels: Tensor, channels: int) -> Tensor:
    """`[N, H, W]` to `[N, channels, H, W]` in [-1, 1], with the same random colour of a label in every picture."""
    table = Rng(0, "colours").at(0, torch.arange(256)).uniform("colours", (channels,)) * 2 - 1
    return table[labels].permute(0, 3, 1, 2)
