"""CIFAR-10 (Krizhevsky 2009) in the layout that torchvision reads and downloads."""

from dataclasses import dataclass
from typing import Annotated

import torch

from ddpm.base import check
from ddpm.data.sources.base import ArrayImages


@dataclass(frozen=True)
class Cifar10(check.Checked):
    """root: the folder that holds `cifar-10-batches-py`. split: train (50,000 images) or test (10,000)."""

    root: str
    split: Annotated[str, check.words("train", "test")] = "train"

    def open(self) -> ArrayImages:
        from torchvision.datasets import CIFAR10

        try:
            data = CIFAR10(self.root, train=self.split == "train")
        except RuntimeError as error:  # raised by torchvision for missing or damaged files
            raise ValueError(
                f"data.source.root={str(self.root)!r} does not contain CIFAR-10 (or a file is damaged); {REMEDY}"
            ) from error
        labels = torch.tensor(data.targets, dtype=torch.int64)
        return ArrayImages(f"cifar10 {self.split}", data.data, labels, tuple(data.classes))

    def download(self) -> None:
        from torchvision.datasets import CIFAR10

        try:
            CIFAR10(self.root, train=self.split == "train", download=True)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"CIFAR-10 could not be downloaded to {str(self.root)!r} ({error}); {REMEDY}") from error


REMEDY = (
    "set data.download=true on a machine that is online, or data.source.root to the folder that holds "
    "cifar-10-batches-py, or use data=parquet data.source.path=FILES for the Hugging Face files"
)
