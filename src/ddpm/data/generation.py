"""Lightning's door to generation: the sample numbers that each rank is to make."""

from collections.abc import Callable

from lightning.pytorch import LightningDataModule
from torch import Tensor

from ddpm import check
from ddpm.data.samples import SampleLoader


class GenerationDataModule(LightningDataModule):
    """num_samples: of all ranks together. batch_size: samples at once on each rank.

    there: says which samples exist already, bool `[num_samples]`, or None; set it to continue.
    """

    def __init__(self, num_samples: int, batch_size: int) -> None:
        super().__init__()
        self.num_samples = check.positive_int("num_samples", num_samples)
        self.batch_size = check.positive_int("batch_size", batch_size)
        self.there: Callable[[], Tensor | None] = lambda: None

    def predict_dataloader(self) -> SampleLoader:
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return SampleLoader(self.num_samples, self.batch_size, rank=rank, world_size=world_size, there=self.there())
