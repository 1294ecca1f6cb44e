"""Write generated images to a store batch by batch, on any number of ranks, and draw a grid of the first ones."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ddpm.base.atomic import remove_partial_files
from ddpm.base.image_grid import tile_images
from ddpm.base.images import to_uint8
from ddpm.base.types import Batch
from ddpm.generation.module import GenerationModule
from ddpm.generation.record import GenerationRecord
from ddpm.generation.stores.base import GIF, GRID, ImageStore, save_png


class ImageWriter(Callback):
    """Holds one batch in memory. draw: maps the first images, uint8 `[B, C, H, W]`, to a picture.

    grid.png is written last; without it, a generation is unfinished.
    """

    def __init__(
        self, store: ImageStore, record: GenerationRecord, draw: Callable[[Tensor], Tensor] = tile_images
    ) -> None:
        self.store, self.record, self.draw = store, record, draw
        self.picture, self.gif = store.folder / "grid.png", store.folder / "denoising.gif"

    def is_finished(self) -> bool:
        return self.store.holds(GRID, self.picture) and bool(self.store.done_mask().all())

    @rank_zero_only
    def adopt(self) -> None:
        """Add what is missing to finished samples of an older version, unless their folder is read-only."""
        if os.access(self.store.folder, os.W_OK):
            self.store.adopt()

    def on_predict_start(self, trainer: Trainer, module: GenerationModule) -> None:
        if trainer.is_global_zero:
            self.begin()
        trainer.strategy.barrier()

    def on_predict_batch_end(self, trainer: Trainer, module: Any, outputs: Tensor, batch: Batch, *_: Any) -> None:
        pixels = to_uint8(outputs.float()).permute(0, 2, 3, 1).cpu().numpy()
        for number, image in zip(batch["index"].tolist(), pixels, strict=True):
            self.store.write(number, image)

    def on_predict_end(self, trainer: Trainer, module: GenerationModule) -> None:
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self.finish()
        trainer.strategy.barrier()

    def begin(self) -> None:
        """Remove grids of fewer samples, then write the record, before any sample is written."""
        self.store.folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(self.store.folder)
        if self.store.continues:
            self.picture.unlink(missing_ok=True)
            self.gif.unlink(missing_ok=True)
            self.record.write()
        self.store.begin()
        self.store.seal(GRID, b"")
        self.store.seal(GIF, b"")

    def finish(self) -> None:
        first = torch.from_numpy(self.store.finish())
        if not self.store.continues:
            self.record.write()
        drawn = self.draw(first.permute(0, 3, 1, 2)).numpy()
        save_png(self.picture, drawn, partial(self.store.seal, GRID))
