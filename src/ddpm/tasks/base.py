"""Interfaces of tasks: the model that a task receives, and the outcome that it returns."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.progress import ProgressDisplay
from ddpm.base.rng import Rng
from ddpm.base.types import Cond, SplitName
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.order import choose_subset
from ddpm.diffusion.conditions.base import Condition
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers.base import Sampler, State
from ddpm.model.codec import Codec

Run = Callable[[Tensor], Iterator[State]]
"""Maps row numbers, int64 `[B]`, to the sampling states of these rows."""


@dataclass(frozen=True)
class Outcome:
    """pictures: uint8 `[H, W, 1 or 3]` by name, which may begin with a folder. arrays: images `[..., C, H, W]`,
    approximately in [-1, 1], and other arrays, by name.

    numbers: values for the JSON file. lines: text to print.
    """

    pictures: dict[str, Tensor]
    arrays: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Model:
    """A trained model for a task, used without gradients.

    condition: condition of samples. conditions_of: maps row numbers, int64 `[B]`, to requested conditions (possibly
    empty). image_shape: `(C, H, W)`. batch_size: images per batch. data: data set of the task, or None if unknown.
    another: loads the model of another checkpoint, on the same device. require_memory: raises ValueError if that many
    images, all of which a task holds, or a batch of them do not fit in memory.
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
    require_memory: Callable[[int], None]

    @property
    def T(self) -> int:
        return self.sampler.process.T

    def ids(self, *numbers: int) -> Tensor:
        return torch.tensor(numbers, device=self.device)

    def prior(self, ids: Tensor) -> Tensor:
        """x_T of the samples `ids`, int64 `[B]`, the same as in `task=generate`."""
        self.require_memory(len(ids))
        return self.sampler.process.prior(self.codec.latent_shape(self.image_shape), self.rng.at(self.T, ids))

    def sampled(
        self,
        x: Tensor,
        ids: Tensor,
        start: int,
        sampler: Sampler | None = None,
        cond: Cond | None = None,
        watch: Callable[[Tensor, State], None] = lambda rows, state: None,
    ) -> Tensor:
        """Images `[N, C, H, W]` on the CPU, sampled from x `[N, C, H, W]` at `start`.

        cond: conditions of the N samples; None: those of the command. watch: called with the row numbers and each
        state.
        """
        sampler = sampler or self.sampler

        def run(rows: Tensor) -> Iterator[State]:
            known = self.conditions_of(rows) if cond is None else {name: each[rows] for name, each in cond.items()}
            for state in sampler.trajectory(self.denoiser, x[rows], self.rng, ids[rows], known, start=start):
                watch(rows, state)
                yield state

        return self.decode(self.finish(run, len(ids), num_steps(sampler, start)))

    def finish(self, run: Run, num: int, num_steps: int) -> Tensor:
        """The final x `[num, C, H, W]` of a run, computed in batches with a progress display."""
        batches = self.batches(num)
        done, ends = 0, []
        with ProgressDisplay("step", len(batches) * num_steps) as display:
            for rows in batches:
                for state in run(rows):
                    done += 1
                    if done < display.total and display.is_due(done):
                        display.show(done, f"{len(rows)} images at t = {state.t}")
                ends.append(state.x_t)
        return torch.cat(ends)

    def batches(self, num: int) -> tuple[Tensor, ...]:
        """The row numbers 0..num-1 in batches of `batch_size`."""
        self.require_memory(num)
        return torch.arange(num, device=self.device).split(self.batch_size)

    def encode(self, images: Tensor) -> Tensor:
        """x0 of images `[N, C, H, W]` in [-1, 1]."""
        return torch.cat([self.codec.encode({"image": images[rows]}) for rows in self.batches(len(images))])

    def decode(self, x0: Tensor) -> Tensor:
        """Decode x0 to images `[..., C, H, W]` on the CPU."""
        flat = x0.flatten(0, -4)
        batches = (flat[rows.to(flat.device)].to(self.device) for rows in self.batches(len(flat)))
        images = torch.cat([self.codec.decode(batch).float().cpu() for batch in batches])
        return images.view(*x0.shape[:-3], *images.shape[-3:])


@dataclass(frozen=True)
class ImageTask(ABC):
    """A task with real images. images: number of images of the split (the same ones in every run), or their numbers."""

    images: list[int] | int
    split: SplitName

    def __post_init__(self) -> None:
        if not isinstance(self.images, list | tuple):
            check.integer("task.images", self.images, low=1)
        elif not self.images:
            check.fail("task.images", self.images, "a number of images, or a list of their numbers as [3, 17]")
        else:
            for number in self.images:
                check.integer("task.images", number, low=0)
        check.fields(self, "task.")

    @abstractmethod
    def __call__(self, model: Model) -> Outcome: ...

    def real(self, model: Model) -> tuple[list[int], Tensor]:
        """Numbers and images `[N, C, H, W]` in [-1, 1], on the model's device."""
        numbers, batch = self.examples(model)
        return numbers, batch["image"]

    def examples(self, model: Model) -> tuple[list[int], dict[str, Tensor]]:
        """Numbers of the images, and the fields of a batch of them."""
        if model.data is None:
            raise ValueError("the checkpoint does not state its data set: choose one, for example data=mnist")
        model.data.require_shape(model.image_shape, "the images of this model")
        model.data.prepare_data()
        data = model.data.split(self.split)
        if isinstance(self.images, int):
            numbers = choose_subset(len(data), check.integer("task.images", self.images, 1, len(data))).tolist()
        else:
            numbers = [check.integer("task.images", number, 0, len(data) - 1) for number in self.images]
        model.require_memory(len(numbers))
        (stored,) = data.pixels.full_reader(persistent=False).read([data.indices[torch.tensor(numbers)]])
        return numbers, data.pixels.fields(stored.to(model.device))


def gaussian(model: Model, task: str) -> GaussianDiffusion:
    """The process of the model. Raises ValueError unless it is Gaussian."""
    process = model.sampler.process
    if not isinstance(process, GaussianDiffusion):
        raise ValueError(f"task={task} needs process=gaussian, but the model has {type(process).__name__}")
    return process


def num_steps(sampler: Sampler, start: int) -> int:
    return len(sampler.times(start)) - 1


def format_decibels(value: Tensor | float) -> str:
    return f"{float(value):.1f} dB" if math.isfinite(value) else "no error"
