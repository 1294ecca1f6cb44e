"""The LightningDataModule of generation: sample numbers for each rank, and their conditions."""

from collections.abc import Callable, Mapping

from lightning.pytorch import LightningDataModule
from torch import Tensor

from ddpm.base import check
from ddpm.data.pixels import ImageData
from ddpm.generation.samples import NO_LABEL, SampleBatch, SampleLoader


class GenerationDataModule(LightningDataModule):
    """num_samples: of all ranks together. batch_size: samples per batch and rank. conditions, images: see
    `SampleLoader`.

    done_mask: bool `[num_samples]`, samples that exist already, or None; set it to continue a generation.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        conditions: Mapping[str, Tensor] = NO_LABEL,
        images: ImageData | None = None,
    ) -> None:
        super().__init__()
        self.num_samples = check.positive_int("num_samples", num_samples)
        self.batch_size = check.positive_int("batch_size", batch_size)
        self.conditions, self.images = conditions, images
        self.done_mask: Callable[[], Tensor | None] = lambda: None

    def predict_dataloader(self) -> SampleLoader:
        place = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size, "done_mask": self.done_mask()}
        return SampleLoader(self.num_samples, self.batch_size, conditions=self.conditions, images=self.images, **place)

    def first(self, num: int) -> SampleBatch:
        """The first samples as one batch."""
        return next(iter(SampleLoader(num, num, conditions=self.conditions, images=self.images)))

    def labels_of(self, ids: Tensor) -> Tensor:
        """Labels of the samples numbered `ids`, int64 `[B]`; -1 for no label."""
        images = self.images
        labels = {**NO_LABEL, **self.conditions}["label"] if images is None else images.labels[images.indices]
        return labels[ids.cpu() % len(labels)]
