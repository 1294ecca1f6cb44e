"""Inversion: encode real images to x_T and reconstruct them (Song et al. 2021, section 5.4 and table 2)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.diffusion.exact.inversion import draws_noise, invert
from ddpm.diffusion.samplers.base import Sampler
from ddpm.metrics.fidelity import squared_error
from ddpm.tasks.base import ImageTask, Model, Outcome, gaussian
from ddpm.tasks.sheet import beside_originals


@dataclass(frozen=True)
class Invert(ImageTask):
    """steps: numbers of steps for encoding and for decoding, instead of the sampler's own.

    Encoding uses inverse DDIM steps at the sampler's times, decoding uses the sampler.
    """

    idle: ClassVar = {
        "sampler.steps": "task.steps has the numbers of steps",
        "seed": "task=invert draws no noise",
    }
    steps: list[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.steps, list | tuple) or not self.steps:
            check.fail("task.steps", self.steps, "a list of numbers of steps, for example [10, 20, 50]")

    def __call__(self, model: Model) -> Outcome:
        gaussian(model, "invert")
        if draws_noise(model.sampler):
            name = model.sampler.describe()
            raise ValueError(f"task=invert needs a deterministic sampler, but {name} adds noise; add sampler=ddim")
        for steps in self.steps:
            check.integer("task.steps", steps, low=1, high=model.T)
        samplers = [replace(model.sampler, steps=steps) for steps in self.steps]
        for sampler in samplers:
            sampler.times(model.T)  # raises early if that many steps are impossible
        numbers, images = self.real(model)
        there, back = zip(*(both_ways(model, sampler, images) for sampler in samplers), strict=True)
        images = images.cpu()
        each = [squared_error(outputs, images) for outputs in back]  # [N] for each number of steps
        errors = [error.mean().item() for error in each]
        labelled = {f"{s} steps\n{error:.2g}": x for s, error, x in zip(self.steps, errors, back, strict=True)}
        title = "encoded to x_T and decoded; mean squared error of pixels in [0, 1]"
        drawn = beside_originals(numbers, images, labelled, title)
        lines = ["steps  mean squared error of pixels in [0, 1]"]
        lines += [f"{steps:5}  {error:.2g}" for steps, error in zip(self.steps, errors, strict=True)]
        arrays = {"originals": images, "x_T": torch.stack(there), "reconstructions": torch.stack(back)}
        table = [
            {"steps": steps, "squared_error": error, "of_each_image": of_each.tolist()}
            for steps, error, of_each in zip(self.steps, errors, each, strict=True)
        ]
        return Outcome({"invert": drawn}, arrays, {"images": numbers, "reconstruction": table}, lines)


def both_ways(model: Model, sampler: Sampler, images: Tensor) -> tuple[Tensor, Tensor]:
    """x_T and the reconstruction of images `[N, C, H, W]`, both on the CPU."""
    process = gaussian(model, "invert")
    rising = sampler.times(model.T)[::-1]
    x0 = model.encode(images)
    plan = [(x0[rows], model.conditions_of(rows)) for rows in model.batches(len(x0))]
    x_T = torch.cat([invert(process, model.denoiser, images, rising, cond) for images, cond in plan])
    ids = torch.zeros(len(x_T), dtype=torch.int64, device=model.device)
    return x_T.cpu(), model.sampled(x_T, ids, model.T, sampler)
