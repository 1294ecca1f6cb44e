"""Evaluation of images while they are generated, and of images generated before."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ddpm.data.order import split_among_ranks
from ddpm.data.pixels import to_floats
from ddpm.evaluation.reference import Reference, show_progress
from ddpm.generation.datamodule import GenerationDataModule
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.score import Estimate


class StoredImages(Protocol):
    def read(self, plan: list[Tensor]) -> Iterator[Tensor]:
        """Yields images uint8 `[B, C, H, W]` for each int64 `[B]` of image numbers in `plan`."""
        ...


class EvaluationCallback(Callback):
    """Gives the evaluator the real images, then the generated ones; each rank gives its share of both.

    The extractor runs asynchronously on the device while the next batch is prepared. samples: numbers and labels of all
    samples. stored: the images that predict_step does not generate; None if it generates all.
    """

    def __init__(
        self, evaluator: Evaluator, reference: Reference, samples: GenerationDataModule, stored: StoredImages | None
    ) -> None:
        self.evaluator, self.reference = evaluator, reference
        self.samples, self.stored = samples, stored
        self.values: dict[str, Estimate] = {}

    def on_predict_start(self, trainer: Trainer, model: LightningModule) -> None:
        self.evaluator.to(trainer.strategy.root_device)
        self.generated = torch.zeros(self.samples.num_samples, dtype=torch.bool)
        if self.evaluator.needs_real and not self.evaluator.knows_real:
            self.reference.show(self.evaluator, trainer)

    def on_predict_batch_end(self, trainer: Trainer, model: Any, outputs: Tensor, batch: Any, *_: Any) -> None:
        self.evaluator.update_fake(outputs.float(), batch["index"], batch["label"])
        self.generated[batch["index"].cpu()] = True

    def on_predict_end(self, trainer: Trainer, model: LightningModule) -> None:
        self.show_stored(trainer)
        self.values = self.evaluator.compute()

    def show_stored(self, trainer: Trainer) -> None:
        num, size = self.samples.num_samples, self.evaluator.batch_size
        shares = split_among_ranks(0, num, trainer.global_rank, trainer.world_size, size)
        plan = [ids for ids in (some[~self.generated[some]] for some in shares) if len(ids)]
        if not plan:
            return
        assert self.stored is not None
        batches = ({"image": to_floats(pixels)} for pixels in self.stored.read(plan))
        shown = show_progress(batches, sum(map(len, plan)), "features of generated image")
        for batch, ids in zip(shown, plan, strict=True):
            self.evaluator.update_fake(batch["image"], ids, self.samples.labels_of(ids))
