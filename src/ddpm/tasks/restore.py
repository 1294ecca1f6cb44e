"""What the tasks share that paint an image anew of which a part is known."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.samplers.replacement import (
    KnownSampler,
    Projection,
    independent,
    replacement_trajectory,
    resampling_path,
)
from ddpm.metrics.fidelity import squared_error
from ddpm.model.codec import BinaryCodec, PixelCodec
from ddpm.tasks.base import ImageTask, Model, Outcome
from ddpm.tasks.sheet import sheet

COMPLETIONS_OF_AN_IMAGE = 2**20
"""The noise of completion k of image n is keyed by n times this + k, so neither number changes that of the others."""


def completion_ids(model: Model, numbers: list[int], num_completions: int) -> Tensor:
    """int64 `[N * num_completions]`, those of one image in a row."""
    first = model.ids(*numbers) * COMPLETIONS_OF_AN_IMAGE
    return (first[:, None] + torch.arange(num_completions, device=model.device)).flatten()


@dataclass(frozen=True)
class Completion(ImageTask):
    """Completions of images of which only a projection is used.

    As a picture that is what is known, with hidden pixels in the middle of black and white.
    """

    redraw: ClassVar[KnownSampler] = staticmethod(independent)
    num_completions: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check.positive_int("task.num_completions", self.num_completions)

    @abstractmethod
    def projection(self, model: Model) -> Projection:
        """ValueError for a model that cannot keep such a part."""

    def times(self, model: Model) -> list[int]:
        return model.sampler.times(model.T)

    def __call__(self, model: Model) -> Outcome:
        task = type(self).__module__.rpartition(".")[2]
        if not isinstance(model.codec, PixelCodec | BinaryCodec):  # known pixels are no part of a latent
            raise ValueError(f"task={task} needs a model of pixels, and this one has {type(model.codec).__name__}")
        projection, times = self.projection(model), self.times(model)
        numbers, images = self.real(model)
        ids, images = completion_ids(model, numbers, self.num_completions), model.codec.encode(images)
        x0 = images.repeat_interleave(self.num_completions, dim=0)

        def run(rows: Tensor) -> Iterator[State]:
            about = projection, self.redraw, times, model.rng, ids[rows], model.conditions_of(rows)
            return replacement_trajectory(model.sampler, model.denoiser, x0[rows], *about)

        outputs = model.finish(run, len(ids), len(times) - 1).cpu().float()
        error = (projection(outputs) - projection(x0.cpu())).abs().max().item()
        outputs, images = outputs.unflatten(0, (len(numbers), self.num_completions)), images.cpu()
        down = sum(s < t for t, s in pairwise(times))
        known = projection(images)
        drawn = sheet(
            [[images[i], known[i], *outputs[i]] for i in range(len(numbers))],
            rows=[f"image {number}" for number in numbers],
            columns=["original", "known", *(f"{k + 1}" for k in range(self.num_completions))],
            title=f"completions of what is known: {task}, {down} steps",
        )
        figures = {
            "images": numbers,
            "steps_down": down,
            "largest_error_of_the_known_part": error,
            "squared_error": squared_error(outputs, images[:, None]).tolist(),
        }
        arrays = {"originals": images, "known": known, "completions": outputs}
        return Outcome({task: drawn}, arrays, figures, [f"{down} steps down; what is known is kept to {error:.1g}"])


@dataclass(frozen=True)
class ResampledCompletion(Completion):
    """jump_length, num_resamples: after so many steps of the sampler, back up as many, until these have been made
    num_resamples times; j = 10 and r = 10 in RePaint, with 250 steps. 1 is no resampling, as in ILVR.
    """

    jump_length: int
    num_resamples: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check.positive_int("task.jump_length", self.jump_length)
        check.positive_int("task.num_resamples", self.num_resamples)

    def times(self, model: Model) -> list[int]:
        times, jump, num = model.sampler.times(model.T), self.jump_length, self.num_resamples
        if num > 1:
            if not isinstance(model.sampler.process, GaussianDiffusion):
                raise ValueError(f"task.num_resamples={num} needs process=gaussian; take task.num_resamples=1")
            if len(times) < 3 or jump > len(times) - 2:
                must_be = f"less than the sampler's number of steps, {len(times) - 1}; or take task.num_resamples=1"
                check.fail("task.jump_length", jump, must_be)
        return resampling_path(times, jump, num)
