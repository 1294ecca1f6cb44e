"""Pictures of the same held-out images beside their reconstructions by a first stage, while it is being trained."""

import torch
from lightning.pytorch import Trainer

from ddpm.base import check
from ddpm.base.image_grid import annotate, tile_images
from ddpm.base.images import to_uint8
from ddpm.training.callbacks.periodic import PeriodicWork
from ddpm.training.callbacks.sample_grid import held_out, real_batch
from ddpm.training.logs import log_picture, picture_path
from ddpm.training.module import DiffusionModule

NAME = "reconstructions"
NUM_COLUMNS = 8
"""Of images, in two rows: the originals above, the reconstructions below."""


class ReconstructionGrid(PeriodicWork):
    """num_images: images of the validation split, or of the training split if there is none.

    every_n_steps: optimizer steps between grids; one more at the end of training. The averaged weights draw, if there
    are any.
    """

    def __init__(self, num_images: int, every_n_steps: int) -> None:
        super().__init__(check.positive_int("every_n_steps", every_n_steps))
        self.num_images = check.positive_int("num_images", num_images)

    def is_done(self, trainer: Trainer, module: DiffusionModule) -> bool:
        return picture_path(trainer, NAME).exists()

    def work(self, trainer: Trainer, module: DiffusionModule) -> None:
        with self.tolerated(trainer, "the grid of reconstructions"):
            model, data = module.model, held_out(trainer)
            spread = torch.linspace(0, len(data) - 1, self.num_images).round().long()  # over classes, if sorted by them
            images = real_batch(module.model, data, spread)["image"]
            with model.inference(trainer.precision_plugin.forward_context()):
                network = model.weights(model.best_weights)
                found = network(images, torch.zeros(len(images), device=images.device)).float()
            parts = (to_uint8(each).split(NUM_COLUMNS) for each in (images, found))
            rows = [torch.cat(pair) for pair in zip(*parts, strict=True)]
            picture = tile_images(torch.cat(rows), min(NUM_COLUMNS, self.num_images))
            picture = annotate(picture, rows=["original", "reconstruction"] * len(rows))
            caption = f"step {trainer.global_step}, {model.describe_weights(model.best_weights)} weights"
            log_picture(trainer, NAME, picture, caption)
