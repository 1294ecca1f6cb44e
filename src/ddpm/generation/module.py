"""Lightning's door to a model that generates: a batch of sample numbers in, images out, on any number of ranks."""

from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from ddpm.model.diffusion_model import DiffusionModel


class GenerationModule(LightningModule):
    """Generation is a data set of sample numbers and what is requested of each (`ddpm.generation.samples`).

    model: None where all images are there, and nothing is to be made.
    """

    def __init__(self, model: DiffusionModel | None) -> None:
        super().__init__()
        self.model = model

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        model = self.model
        assert model is not None, "all images are there"
        return model.generate(
            batch["index"], model.predict_weights, model.sample_condition.of(batch), batch.get("image")
        )
