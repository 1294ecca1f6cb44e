"""Shared code of tasks that complete images of which a projection is known."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.base import check
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.samplers.replacement import (
    KnownSampler,
    PixelProjection,
    Projection,
    independent,
    replacement_trajectory,
    resampling_path,
)
from ddpm.metrics.fidelity import squared_error
from ddpm.tasks.base import ImageTask, Model, Outcome
from ddpm.tasks.masks import known_pixels
from ddpm.tasks.sheet import sheet

COMPLETIONS_OF_AN_IMAGE = 2**20
"""The id of completion k of image n is n times this + k, so that its noise does not depend on the other numbers."""


def completion_ids(model: Model, numbers: list[int], num_completions: int) -> Tensor:
    """Sample ids, int64 `[N * num_completions]`; those of one image are consecutive."""
    first = model.ids(*numbers) * COMPLETIONS_OF_AN_IMAGE
    return (first[:, None] + torch.arange(num_completions, device=model.device)).flatten()


def mask_projection(model: Model, mask: str) -> PixelProjection:
    """The values of x0 whose pixels are all known. mask: the unknown part, see `ddpm.tasks.masks`."""
    known = known_pixels(str(mask), *model.image_shape[1:])
    factor = model.image_shape[1] // model.codec.latent_shape(model.image_shape)[1]
    latent = -F.max_pool2d(-known[None], factor)[0]
    if not latent.any():
        check.fail(
            "task.mask", mask, f"an image with a known block of {factor} x {factor} pixels, a latent of the model"
        )
    return PixelProjection(latent.to(model.device))


def demand_pixels(model: Model, task: str) -> None:
    if not model.codec.pixelwise:
        name = type(model.codec).__name__
        raise ValueError(
            f"task={task} needs a model of pixels, but this one has {name}; task=inpaint works with latents"
        )


@dataclass(frozen=True)
class Completion(ImageTask):
    """Complete images from a projection of them.

    In pictures of the projection, unknown pixels are mid-grey.
    """

    redraw: ClassVar[KnownSampler] = staticmethod(independent)
    num_completions: check.PositiveInt

    @abstractmethod
    def projection(self, model: Model) -> Projection:
        """The known projection of x0. Raises ValueError if the model does not support it."""

    def times(self, model: Model) -> list[int]:
        return model.sampler.times(model.T)

    def __call__(self, model: Model) -> Outcome:
        task = type(self).__module__.rpartition(".")[2]
        projection, times = self.projection(model), self.times(model)
        numbers, images = self.real(model)
        ids = completion_ids(model, numbers, self.num_completions)
        encoded = model.encode(images)
        x0 = encoded.repeat_interleave(self.num_completions, dim=0)

        def run(rows: Tensor) -> Iterator[State]:
            about = projection, type(self).redraw, times, model.rng, ids[rows]
            cond = model.conditions_of(rows)
            return replacement_trajectory(model.sampler, model.denoiser, x0[rows], *about, cond)

        completed = model.finish(run, len(ids), len(times) - 1)
        error = (projection(completed) - projection(x0)).abs().max().item()
        outputs = model.decode(completed).unflatten(0, (len(numbers), self.num_completions))
        images = model.decode(encoded)  # as the model sees them
        down = sum(s < t for t, s in pairwise(times))
        where = "" if model.codec.pixelwise else f" of the latents, {x0.shape[-2]} x {x0.shape[-1]},"
        line = f"the known part{where} is kept up to {error:.1g}"
        return outcome(task, numbers, images, projection(images), outputs, down, error, line)


def outcome(
    task: str, numbers: list[int], images: Tensor, known: Tensor, outputs: Tensor, steps: int, error: float, line: str
) -> Outcome:
    """The picture, arrays and figures of completions. images, known: `[N, C, H, W]`; outputs: `[N, K, C, H, W]`."""
    drawn = sheet(
        [[images[i], known[i], *outputs[i]] for i in range(len(numbers))],
        rows=[f"image {number}" for number in numbers],
        columns=["original", "known", *(f"completion {k + 1}" for k in range(outputs.shape[1]))],
        title=f"{task}: completions of the known part, {steps} steps",
    )
    figures = {
        "images": numbers,
        "steps_down": steps,
        "largest_error_of_the_known_part": error,
        "squared_error": squared_error(outputs, images[:, None]).tolist(),
    }
    arrays = {"originals": images, "known": known, "completions": outputs}
    return Outcome({task: drawn}, arrays, figures, [f"{steps} steps; {line}"])


@dataclass(frozen=True)
class ResampledCompletion(Completion):
    """Completion with the resampling of RePaint: every jump_length steps are run num_resamples times.

    RePaint uses jump_length 10 and num_resamples 10, which None means, with 250 steps; with 10 steps or fewer, None is
    the longest jump. num_resamples 1 means no resampling, as in ILVR.
    """

    jump_length: check.PositiveInt | None
    num_resamples: check.PositiveInt | None

    def times(self, model: Model) -> list[int]:
        times, num = model.sampler.times(model.T), self.num_resamples or 10
        jump = self.jump_length or min(10, max(1, len(times) - 2))
        if num > 1:
            if not isinstance(model.sampler.process, GaussianDiffusion):
                raise ValueError(f"task.num_resamples={num} needs process=gaussian; use task.num_resamples=1")
            if len(times) < 3 or jump > len(times) - 2:
                must_be = f"less than the sampler's number of steps, {len(times) - 1}; or use task.num_resamples=1"
                check.fail("task.jump_length", jump, must_be)
        return resampling_path(times, jump, num)
