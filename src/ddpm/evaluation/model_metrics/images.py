"""What metrics on real images share: which images, in which batches, and what a result says of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only

from ddpm.base import check
from ddpm.checkpoint.groups import UNGUIDED
from ddpm.config import build
from ddpm.data.datamodule import ImageData, ImageDataModule
from ddpm.data.loader import EvalLoader
from ddpm.diffusion.process import demand_markov
from ddpm.evaluation.model_metric import Measurement, ModelRun


class Predicted(LightningDataModule):
    """Images for a pass of prediction, each on one rank; `position` is their place, 0..N-1."""

    def __init__(self, images: ImageData, batch_size: int) -> None:
        super().__init__()
        self.images, self.batch_size = images, batch_size

    def __len__(self) -> int:
        return len(self.images)

    def predict_dataloader(self) -> EvalLoader:
        trainer = self.trainer
        assert trainer is not None
        return EvalLoader(self.images, self.batch_size, rank=trainer.global_rank, world_size=trainer.world_size)


class Split(Predicted):
    """Those of a split of a data set."""

    def __init__(self, data: ImageDataModule, split: str, num_images: int | None, batch_size: int) -> None:
        super().__init__(data.split(split, num_images), batch_size)
        self.identity = {"data": data.name, "split": split, "data_hash": data.content_hash(split, num_images)}


@dataclass(frozen=True)
class OfImages(ABC):
    """num_images: of the split, the same in every run; None: all. batch_size: images at once on each device."""

    num_images: int | None
    split: str
    batch_size: int

    def __post_init__(self) -> None:
        if self.num_images is not None:
            check.positive_int("num_images", self.num_images)
        check.positive_int("batch_size", self.batch_size)

    @abstractmethod
    def measure(self, run: ModelRun) -> Measurement: ...

    def opened(self, run: ModelRun) -> Split:
        """The images, of the data that the model was trained on or that the command chose."""
        data = build.data(run.config)
        rank_zero_only(data.prepare_data)()
        return Split(data, self.split, self.num_images, self.batch_size)

    def protocol(self, images: Split, names: Iterable[str], settings: str) -> dict[str, Any]:
        """names: of the values, without the number of images. settings: what made them."""
        num = len(images)
        return {**images.identity, "num_generated": num, "num_real": num, "scores": dict.fromkeys(names, settings)}


class OfLikelihood(OfImages):
    """A measure of the likelihood of images, which not every model has."""

    def opened(self, run: ModelRun) -> Split:
        if run.config.guidance._target_ != UNGUIDED["_target_"]:
            raise ValueError("likelihood is of the model alone, and guidance is none of it: choose guidance=none")
        if run.model is not None:
            demand_markov(run.model.sampler.process, "a likelihood", "metric=fid or metric=restoration")
        return super().opened(run)
