"""The LightningModule of generation: maps a batch of sample numbers to images."""

from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from ddpm.model.diffusion_model import DiffusionModel


class GenerationModule(LightningModule):
    """Batches contain sample numbers and conditions (`ddpm.generation.samples`).

    model: None if all images exist already.
    """

    def __init__(self, model: DiffusionModel | None) -> None:
        super().__init__()
        self.model = model

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        model = self.model
        assert model is not None, "all images exist"
        cond = model.sample_condition.of(batch)
        return model.generate(batch["index"], model.predict_weights, cond, batch.get("image"))
