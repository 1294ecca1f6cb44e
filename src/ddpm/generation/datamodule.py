"""Lightning's door to generation: the numbers of the samples that each rank is to make, and their conditions."""

from collections.abc import Callable, Mapping, Sequence

from lightning.pytorch import LightningDataModule
from torch import Tensor

from ddpm.base import check
from ddpm.data.pixels import ImageData
from ddpm.generation.samples import SampleBatch, SampleLoader, class_cycle


class GenerationDataModule(LightningDataModule):
    """num_samples: of all ranks together. batch_size: samples at once on each rank. labels, conditions, images: what
    samples take in turn, see `SampleLoader`.

    done_mask: which samples exist already, bool `[num_samples]`, or None; set it to continue.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        labels: Sequence[int] | None = None,
        conditions: Mapping[str, Tensor] | None = None,
        images: ImageData | None = None,
    ) -> None:
        super().__init__()
        self.num_samples = check.positive_int("num_samples", num_samples)
        self.batch_size = check.positive_int("batch_size", batch_size)
        self.given = {"labels": labels, "conditions": conditions, "images": images}
        self.done_mask: Callable[[], Tensor | None] = lambda: None

    def predict_dataloader(self) -> SampleLoader:
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        place = {"rank": rank, "world_size": world_size, "done_mask": self.done_mask()}
        return SampleLoader(self.num_samples, self.batch_size, **self.given, **place)

    def first(self, num: int) -> SampleBatch:
        """The first samples as one batch."""
        return next(iter(SampleLoader(num, num, **self.given)))

    def labels_of(self, ids: Tensor) -> Tensor:
        """Of the samples with the numbers `ids`, int64 `[B]`; -1 where there is none."""
        images = self.given["images"]
        labels = class_cycle(self.given["labels"]) if images is None else images.labels[images.indices]
        return labels[ids.cpu() % len(labels)]
