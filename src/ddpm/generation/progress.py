"""Progress and timing of a generation."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from ddpm.base.progress import ProgressDisplay
from ddpm.diffusion.samplers.base import State
from ddpm.generation.module import GenerationModule
from ddpm.generation.record import GenerationRecord, Timing


class GenerationProgress(Callback):
    """Progress in images of all ranks, estimated on the first rank, with sampling steps within a batch.

    num_found: number of images that existed before.
    """

    def __init__(self, num_samples: int, num_found: int = 0) -> None:
        self.num_samples, self.num_found = num_samples, num_found
        self.display: ProgressDisplay | None = None

    def on_predict_start(self, trainer: Trainer, module: GenerationModule) -> None:
        self.done = self.num_found
        if trainer.is_global_zero:
            self.display = ProgressDisplay("image", self.num_samples, self.num_found)

    def on_predict_batch_start(self, trainer: Trainer, module: GenerationModule, batch: Any, *_: Any) -> None:
        here = len(batch["index"]) * trainer.world_size

        def watch(state: State) -> None:
            share = 1 - state.t / module.model.sampler.process.T
            done = min(self.done + here * share, self.num_samples - (state.t > 0))
            if self.display and self.display.is_due(done):
                self.display.show(done, f"{self.display.rate(done):.1f} images/s")

        module.model.on_sampling_step = watch

    def on_predict_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.done += len(batch["index"]) * trainer.world_size

    def on_predict_end(self, trainer: Trainer, module: GenerationModule) -> None:
        if self.display:
            self.display.close()

    def on_exception(self, trainer: Trainer, module: GenerationModule, exception: BaseException) -> None:
        self.on_predict_end(trainer, module)


class GenerationClock(Callback):
    """Measures seconds per image on the first rank. It must be the first callback, before one that writes.

    The first batch is a warm-up and counts only if there is no other. record: stores the timing, if given.
    """

    def __init__(self, device: str, record: GenerationRecord | None) -> None:
        self.device, self.record = device, record
        self.batches: list[tuple[float, int]] = []  # seconds, and images of all ranks

    @property
    def timing(self) -> Timing | None:
        """Timing of this generation; None if it generated nothing."""
        if not self.batches:
            return None
        seconds, images = (sum(each) for each in zip(*(self.batches[1:] or self.batches), strict=True))
        return Timing(seconds / images, images, self.device)

    def on_predict_batch_start(self, trainer: Trainer, *_: Any) -> None:
        synchronize(trainer)
        self.start = time.perf_counter()

    def on_predict_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        synchronize(trainer)
        self.batches.append((time.perf_counter() - self.start, len(batch["index"]) * trainer.world_size))

    def on_predict_end(self, trainer: Trainer, module: GenerationModule) -> None:
        if self.timing and self.record and trainer.is_global_zero:
            self.record.add_timing(self.timing)


def synchronize(trainer: Trainer) -> None:
    """Wait until the device has finished all queued work."""
    device = trainer.strategy.root_device
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
