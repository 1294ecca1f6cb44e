"""What the tasks share that paint an image anew of which a part is known."""

from itertools import pairwise

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.replacement import KnownSampler, Projection, replacement_trajectory, resampling_path
from ddpm.metrics.fidelity import squared_error
from ddpm.tasks.base import Model, Outcome
from ddpm.tasks.sheet import sheet

COMPLETIONS_OF_AN_IMAGE = 2**20
"""The noise of completion k of image n is keyed by n times this + k, so neither number changes that of the others."""


def path_of_times(model: Model, jump_length: int, num_resamples: int) -> list[int]:
    """The sampler's times with RePaint's resampling."""
    times = model.sampler.times(model.T)
    if num_resamples > 1:
        if not isinstance(model.sampler.process, GaussianDiffusion):
            raise ValueError(f"task.num_resamples={num_resamples} needs process=gaussian; take task.num_resamples=1")
        if len(times) < 3 or jump_length > len(times) - 2:
            must_be = f"less than the sampler's number of steps, {len(times) - 1}; or take task.num_resamples=1"
            check.fail("task.jump_length", jump_length, must_be)
    return resampling_path(times, jump_length, num_resamples)


def check_resampling(jump_length: int, num_resamples: int) -> None:
    check.positive_int("task.jump_length", jump_length)
    check.positive_int("task.num_resamples", num_resamples)


def complete_images(
    model: Model,
    task: str,
    numbers: list[int],
    images: Tensor,
    projection: Projection,
    redraw: KnownSampler,
    times: list[int],
    num_completions: int,
) -> Outcome:
    """Completions of images `[N, C, H, W]` of which only the projection is used.

    As a picture that is what is known, with hidden pixels in the middle of black and white.
    """
    first = torch.tensor(numbers, device=model.device) * COMPLETIONS_OF_AN_IMAGE
    ids = (first[:, None] + torch.arange(num_completions, device=model.device)).flatten()
    images = model.codec.encode(images)
    x0 = images.repeat_interleave(num_completions, dim=0)

    def run(rows: Tensor):
        conditions = model.conditions_of(rows)
        return replacement_trajectory(
            model.sampler, model.denoiser, x0[rows], projection, redraw, times, model.rng, ids[rows], conditions
        )

    outputs = model.finish(run, len(ids), len(times) - 1).cpu().float()
    error = (projection(outputs) - projection(x0.cpu())).abs().max().item()
    outputs, images = outputs.unflatten(0, (len(numbers), num_completions)), images.cpu()
    down = sum(s < t for t, s in pairwise(times))
    known = projection(images)
    drawn = sheet(
        [[images[i], known[i], *outputs[i]] for i in range(len(numbers))],
        rows=[f"image {number}" for number in numbers],
        columns=["original", "known", *(f"{k + 1}" for k in range(num_completions))],
        title=f"completions of what is known: {task}, {down} steps",
    )
    numbers_of = {
        "images": numbers,
        "steps_down": down,
        "largest_error_of_the_known_part": error,
        "squared_error": squared_error(outputs, images[:, None]).tolist(),
    }
    arrays = {"originals": images, "known": known, "completions": outputs}
    lines = [f"{down} steps down; what is known is kept to {error:.1g}"]
    return Outcome({task: drawn}, arrays, numbers_of, lines)
