"""What a use of a model is given, and what it gives back."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.progress import ProgressDisplay
from ddpm.base.rng import Rng
from ddpm.base.types import Cond
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.order import choose_subset
from ddpm.diffusion.condition import Condition
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers.base import Sampler, State
from ddpm.model.codec import BinaryCodec, Codec, PixelCodec

Run = Callable[[Tensor], Iterator[State]]
"""The states of the samples with the given rows, int64 `[B]`, of all that a task makes."""


@dataclass(frozen=True)
class Outcome:
    """pictures: uint8 `[H, W, 3]` by name. arrays: images `[..., C, H, W]` about in [-1, 1], and others, by name.

    numbers: what goes into JSON. lines: what a person reads.
    """

    pictures: dict[str, Tensor]
    arrays: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Model:
    """A trained model, ready to be used without gradients.

    condition: of its samples. conditions_of: the request for the samples with these numbers, int64
    `[B]`, nothing if it says nothing. image_shape: `(C, H, W)`. batch_size: images at once. data: what it was
    trained on, or None where nobody knows. another: the model of another checkpoint, on the same device.
    """

    denoiser: Denoiser
    condition: Condition
    conditions_of: Callable[[Tensor], Cond]
    sampler: Sampler
    codec: Codec
    rng: Rng
    image_shape: tuple[int, int, int]
    device: torch.device
    batch_size: int
    data: ImageDataModule | None
    another: Callable[[str], "Model"]

    @property
    def T(self) -> int:
        return self.sampler.process.T

    def ids(self, *numbers: int) -> Tensor:
        return torch.tensor(numbers, device=self.device)

    def prior(self, ids: Tensor) -> Tensor:
        """x_T of the samples `ids`, that of `task=generate`."""
        return self.sampler.process.prior(self.codec.latent_shape(self.image_shape), self.rng.at(self.T, ids))

    def trajectory(
        self, x: Tensor, ids: Tensor, start: int, sampler: Sampler | None = None, cond: Cond | None = None
    ) -> Run:
        """Sampling from x `[N, C, H, W]` at `start`. cond: what each of the N has; None: as the command requests."""
        sampler = sampler or self.sampler

        def run(rows: Tensor) -> Iterator[State]:
            conditions = (
                self.conditions_of(rows) if cond is None else {name: tensor[rows] for name, tensor in cond.items()}
            )
            return sampler.trajectory(self.denoiser, x[rows], self.rng, ids[rows], conditions, start=start)

        return run

    def finish(self, run: Run, num: int, num_steps: int) -> Tensor:
        """The last x `[num, C, H, W]` of a run, made in batches; shows how far it is."""
        batches = self.batches(num)
        display, done, ends = ProgressDisplay("step", len(batches) * num_steps), 0, []
        for rows in batches:
            for state in run(rows):
                done += 1
                if done < display.total and display.is_due(done):
                    display.show(done, f"{len(rows)} images at t = {state.t}")
            ends.append(state.x_t)
        display.close()
        return torch.cat(ends)

    def batches(self, num: int) -> tuple[Tensor, ...]:
        """The rows 0..num-1, so many at once as the command allows."""
        return torch.arange(num, device=self.device).split(self.batch_size)

    def decode(self, x0: Tensor) -> Tensor:
        """Images `[..., C, H, W]` on the CPU."""
        images = self.codec.decode(x0.flatten(0, -4)).float().cpu()
        return images.view(*x0.shape[:-3], *images.shape[-3:])

    def real(self, images: int | Sequence[int], split: str) -> tuple[list[int], Tensor]:
        """Numbers and images `[N, C, H, W]` in [-1, 1] of a split of the data. images: how many, or their numbers."""
        if self.data is None:
            raise ValueError("the checkpoint does not say what it was trained on: choose the data, as in data=mnist")
        if self.data.image_shape != self.image_shape:
            check.fail("data", list(self.data.image_shape), f"of the model's images, {list(self.image_shape)}")
        self.data.prepare_data()
        data = self.data.split(split)
        if isinstance(images, int):
            numbers = choose_subset(len(data), check.integer("task.images", images, 1, len(data))).tolist()
        else:
            numbers = [check.integer("task.images", number, 0, len(data) - 1) for number in images]
        (pixels,) = data.pixels.reader(persistent=False).read([data.indices[torch.tensor(numbers)]])
        return numbers, pixels.to(self.device).float() / 127.5 - 1


class Task(Protocol):
    def __call__(self, model: Model) -> Outcome: ...


def check_images(images: Any) -> int | list[int]:
    """The field `images`: how many, the same ones in every run, or a list of their numbers."""
    if isinstance(images, list | tuple):
        if not images:
            check.fail("task.images", images, "a number of images, or a list of their numbers as [3, 17]")
        return [check.integer("task.images", number, low=0) for number in images]
    return check.integer("task.images", images, low=1)


def gaussian(model: Model, task: str) -> GaussianDiffusion:
    """The process of the model; ValueError unless it is Gaussian."""
    process = model.sampler.process
    if not isinstance(process, GaussianDiffusion):
        raise ValueError(f"task={task} needs process=gaussian, and the model has {type(process).__name__}")
    return process


def refuse_latents(model: Model, task: str) -> None:
    """A part of the pixels that is known is no part of a latent that is known."""
    if not isinstance(model.codec, PixelCodec | BinaryCodec):
        raise ValueError(f"task={task} needs a model of pixels, and this one has {type(model.codec).__name__}")


def num_steps(sampler: Sampler, start: int) -> int:
    return len(sampler.times(start)) - 1


def format_decibels(value: Tensor | float) -> str:
    return f"{float(value):.1f} dB" if math.isfinite(value) else "no error"
