"""Base classes of model metrics on real images: the images, the pass of a model over them, and their protocol."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ddpm.base import check
from ddpm.base.progress import ProgressDisplay
from ddpm.base.rng import Rng
from ddpm.base.types import Batch, SplitName
from ddpm.checkpoint.groups import UNGUIDED
from ddpm.config import build
from ddpm.data.datamodule import ImageData, ImageDataModule
from ddpm.data.loader import EvalLoader
from ddpm.diffusion.process import demand_markov
from ddpm.evaluation.model_metric import Measurement, ModelRun
from ddpm.metrics.evaluator import count_name
from ddpm.metrics.score import Estimate
from ddpm.model.diffusion_model import DiffusionModel


class PredictedImages(LightningDataModule):
    """Images for a prediction pass, each on one rank. The batch's `position` is their place, 0..N-1."""

    def __init__(self, images: ImageData, batch_size: int) -> None:
        super().__init__()
        self.images, self.batch_size = images, batch_size

    def __len__(self) -> int:
        return len(self.images)

    def predict_dataloader(self) -> EvalLoader:
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return EvalLoader(self.images, self.batch_size, rank=rank, world_size=world_size)


class Split(PredictedImages):
    """Images of a split of a data set."""

    def __init__(self, data: ImageDataModule, split: str, num_images: int | None, batch_size: int) -> None:
        super().__init__(data.split(split, num_images), batch_size)
        self.identity = {"data": data.name, "split": split, "data_hash": data.content_hash(split, num_images)}


class ImagePass(LightningModule):
    """A pass of a model over images, each on one rank. At the end, every rank has the complete `shared`.

    shared: tensors by name; each rank fills the part of its images, and their sum is taken. scope: of random numbers.
    """

    def __init__(self, model: DiffusionModel, num_images: int, scope: str, **shared: Tensor) -> None:
        super().__init__()
        self.model, self.num_images, self.shared = model, num_images, shared
        self.rng = Rng(model.sample_rng.seed, scope)
        self.display: ProgressDisplay | None = None

    def take(self, batch: Batch, watch: Callable[[float], None]) -> None:
        """Fill the part of `shared` of a batch. watch: called with the share of the batch that is done, 0..1."""
        raise NotImplementedError

    def run(self, trainer: Trainer, images: PredictedImages) -> Self:
        try:
            trainer.predict(self, images, return_predictions=False)
        finally:
            if self.display:
                self.display.close(is_done=self.done >= self.num_images)
        return self

    def on_predict_start(self) -> None:
        self.display = ProgressDisplay("image", self.num_images) if self.trainer.is_global_zero else None
        self.done = 0
        with torch.inference_mode(False):  # `take` may need gradients, which tensors of inference do not allow
            self.shared = {name: tensor.to(self.device) for name, tensor in self.shared.items()}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        here = len(batch["position"]) * self.trainer.world_size

        def watch(share: float) -> None:
            done = min(self.done + here * share, self.num_images)
            if self.display and self.display.is_due(done) and done < self.num_images:
                self.display.show(done, f"{self.display.rate(done):.2f} images/s")

        self.take(batch, watch)
        watch(1)
        self.done += here
        return batch["position"]

    def on_predict_end(self) -> None:
        whole = {name: self.trainer.strategy.reduce(each, reduce_op="sum") for name, each in self.shared.items()}
        self.shared = {name: tensor.cpu() for name, tensor in whole.items()}


def mean_and_error(each: Tensor) -> Estimate:
    """The mean of one value per image, `[N]`, with its standard error over the images."""
    return Estimate(each.mean().item(), each.std().item() / math.sqrt(len(each)) if len(each) > 1 else 0.0)


@dataclass(frozen=True)
class OfImages(check.Checked, ABC):
    """num_images: images of the split, the same in every run; None: all. batch_size: images at once on each device."""

    num_images: check.PositiveInt | None
    split: SplitName
    batch_size: check.PositiveInt

    @abstractmethod
    def measure(self, run: ModelRun) -> Measurement: ...

    def opened(self, run: ModelRun) -> Split:
        """The images of the data that the command chose, or else of the model's training."""
        data = build.data(run.config, run.model.condition)
        data.require_shape(run.model.image_shape, "the images of this model")
        rank_zero_only(data.prepare_data)()
        return Split(data, self.split, self.num_images, self.batch_size)

    def measurement(
        self, images: Split, values: Mapping[str, Estimate], names: Iterable[str], settings: str, **beside: Any
    ) -> Measurement:
        """values: by name; the number of images is appended to each. names: of the scores in the protocol. settings: of
        the metric, stored for each name. beside: other fields of the `Measurement`."""
        num = len(images)
        scores = dict.fromkeys(names, settings)
        protocol = {**images.identity, "num_generated": num, "num_real": num, "scores": scores}
        return Measurement({f"{name}_{count_name(num)}": value for name, value in values.items()}, protocol, **beside)


class OfLikelihood(OfImages):
    """A metric of the likelihood of images; ValueError for models that do not have one. Its terms are of all times."""

    idle: ClassVar[tuple[str, ...]] = ("timestep_spacing", "sampler.steps", "sampler.eta")

    def opened(self, run: ModelRun) -> Split:
        if run.config.guidance._target_ != UNGUIDED["_target_"]:
            raise ValueError("the likelihood is that of the model without guidance: choose guidance=none")
        demand_markov(run.model.sampler.process, "a likelihood", "metric=fid or metric=restoration")
        return super().opened(run)
