"""Writes generated images as they come, one PNG each or rows of one array, on any number of ranks."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image
from torch import Tensor

from ddpm.metrics.images import to_uint8
from ddpm.pictures import grid
from ddpm.training.module import DiffusionModule

FORMATS = ("grid", "png", "npz")


class ImageWriter(Callback):
    """Needs memory for one batch, whatever the number of samples.

    folder: where to write. format: `png` writes images/NUMBER.png; `npz` writes samples.npz with `arr_0`, uint8
    `[N, H, W, C]` (the layout of guided diffusion's evaluations); every format writes grid.png of the first images.
    """

    GRID = 64

    def __init__(self, folder: Path, format: str, num_samples: int, image_shape: tuple[int, int, int]) -> None:
        self.folder, self.format, self.num_samples = folder, format, num_samples
        channels, height, width = image_shape
        self.shape = (height, width, channels)

    def on_predict_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.head = self._array("grid", min(self.GRID, self.num_samples), trainer)
        if self.format == "npz":
            self.rows = self._array("samples", self.num_samples, trainer)
        if self.format == "png":
            (self.folder / "images").mkdir(exist_ok=True)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        module: DiffusionModule,
        outputs: Tensor,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        pixels = to_uint8(outputs.float()).permute(0, 2, 3, 1).cpu().numpy()
        for number, image in zip(batch["index"].tolist(), pixels, strict=True):
            if number < len(self.head):
                self.head[number] = image
            if self.format == "npz":
                self.rows[number] = image
            if self.format == "png":
                Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(self._png(number))

    def on_predict_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.head.flush()
        if self.format == "npz":
            self.rows.flush()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self.finish()
        trainer.strategy.barrier()

    def finish(self) -> None:
        """The first rank turns what all ranks wrote into the files that were asked for."""
        pixels = torch.from_numpy(np.load(self._working("grid")))
        Image.fromarray(grid(pixels.permute(0, 3, 1, 2)).numpy()).save(self.folder / "grid.png")
        self._working("grid").unlink()
        if self.format == "npz":
            np.savez(self.folder / "samples.npz", np.load(self._working("samples"), mmap_mode="r"))
            self._working("samples").unlink()

    def _png(self, number: int) -> Path:
        digits = max(6, math.ceil(math.log10(self.num_samples + 1)))
        return self.folder / "images" / f"{number:0{digits}d}.png"

    def _working(self, name: str) -> Path:
        return self.folder / f".{name}.npy"

    def _array(self, name: str, num: int, trainer: Trainer) -> Any:
        """A uint8 array on disk that all ranks write rows of."""
        if trainer.is_global_zero:
            np.lib.format.open_memmap(self._working(name), "w+", np.uint8, (num, *self.shape)).flush()
        trainer.strategy.barrier()
        return np.lib.format.open_memmap(self._working(name), "r+")
