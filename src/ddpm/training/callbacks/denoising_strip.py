"""A picture of sampling: x_t above the predicted x0, from noise on the left to the sample on the right."""

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.base import check
from ddpm.base.image_grid import POINT, annotate, tile_images
from ddpm.base.images import to_uint8
from ddpm.base.types import Cond
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.training.callbacks.interruption import sampling_progress
from ddpm.training.callbacks.periodic import PeriodicWork
from ddpm.training.callbacks.sample_grid import preview_inputs
from ddpm.training.logs import log_picture, picture_path
from ddpm.training.module import DiffusionModule


class DenoisingStrip(PeriodicWork):
    """Draws the picture with the same work on all ranks.

    num_samples: pairs of rows. num_times: columns, evenly spaced over the sampler's steps. every_n_steps: optimizer
    steps between pictures; another follows after training.
    """

    def __init__(self, num_samples: int, num_times: int, every_n_steps: int) -> None:
        super().__init__(check.positive_int("every_n_steps", every_n_steps))
        self.num_samples = check.positive_int("num_samples", num_samples)
        self.num_times = check.integer("num_times", num_times, low=2)

    def is_done(self, trainer: Trainer, module: DiffusionModule) -> bool:
        return picture_path(trainer, "denoising").exists()

    def work(self, trainer: Trainer, module: DiffusionModule) -> None:
        model, autocast = module.model, trainer.precision_plugin.forward_context()
        with self.tolerated(trainer, "the denoising strip"), model.inference(autocast):
            ids = torch.arange(self.num_samples, device=module.device)
            with sampling_progress(trainer, module, "drawing the denoising strip"):
                strip = self.draw(model, ids, *preview_inputs(trainer, model, ids))
            weights = model.describe_weights(model.best_weights)
            log_picture(trainer, "denoising", strip, f"sampling at step {trainer.global_step}, {weights} weights")

    def draw(self, model: DiffusionModel, ids: Tensor, cond: Cond, images: Tensor | None) -> Tensor:
        """The picture, uint8 `[H, W, C]`; each column is labelled with its time."""
        denoiser, states = model.denoiser(model.best_weights), []
        for state in model.sampler.trajectory(denoiser, model.start(ids, images), model.sample_rng, ids, cond):
            states.append(state)
            model.on_sampling_step(state)
        shown = torch.linspace(0, len(states) - 1, min(self.num_times, len(states))).round().int().tolist()
        x_t = torch.stack([model.codec.decode(states[i].x_t) for i in shown], dim=1)
        x0 = torch.stack([model.codec.decode(states[i].prediction.x0) for i in shown], dim=1)
        cells = to_uint8(torch.stack([x_t, x0], dim=1).flatten(0, 2).float())  # [samples * 2 * times, C, H, W]
        picture = tile_images(cells, num_columns=len(shown))
        rows = ["x_t: blue, x0: orange"] if cells.shape[1:] == POINT else ["x_t", "predicted x0"] * len(ids)
        return annotate(picture, rows=rows, columns=[f"t = {states[i].t}" for i in shown])
