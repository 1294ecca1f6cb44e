"""A picture of sampling: x_t above the predicted x0, from noise on the left to the sample on the right."""

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.base import check
from ddpm.base.image_grid import tile_images
from ddpm.base.images import to_uint8
from ddpm.base.types import Cond
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.training.callbacks.interruption import SideWork
from ddpm.training.callbacks.sample_grid import preview_inputs
from ddpm.training.logs import log_picture, picture_path
from ddpm.training.module import DiffusionModule


class DenoisingStrip(SideWork):
    """Draws the picture after training, with the same work on all ranks.

    num_samples: pairs of rows. num_times: columns, evenly spaced over the sampler's steps.
    """

    def __init__(self, num_samples: int, num_times: int) -> None:
        super().__init__()
        self.num_samples = check.positive_int("num_samples", num_samples)
        self.num_times = check.integer("num_times", num_times, low=2)
        self.trained = False

    def on_fit_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        """If the run was killed while drawing the strip, draw it on resume, although no step is left."""
        if self.trained or trainer.strategy.broadcast(picture_path(trainer, "denoising").exists()):
            return
        module.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU
        self.on_train_end(trainer, module)

    def on_train_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.trained = True

    def on_train_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        autocast = trainer.precision_plugin.forward_context()
        with self.tolerated(trainer, "the denoising strip"), module.model.inference(autocast):
            ids = torch.arange(self.num_samples, device=module.device)
            strip, times = self.draw(module.model, ids, *preview_inputs(trainer, module, ids))
            caption = "x_t above the predicted x0, at t = " + ", ".join(map(str, times))
            log_picture(trainer, "denoising", strip, caption)

    def draw(self, model: DiffusionModel, ids: Tensor, cond: Cond, images: Tensor | None) -> tuple[Tensor, list[int]]:
        """The picture, uint8 `[H, W, C]`, and the times of its columns."""
        denoiser, states = model.denoiser(model.best_weights), []
        for state in model.sampler.trajectory(denoiser, model.start(ids, images), model.sample_rng, ids, cond):
            states.append(state)
            model.on_sampling_step(state)
        shown = torch.linspace(0, len(states) - 1, min(self.num_times, len(states))).round().int().tolist()
        x_t = torch.stack([model.codec.decode(states[i].x_t) for i in shown], dim=1)
        x0 = torch.stack([model.codec.decode(states[i].prediction.x0) for i in shown], dim=1)
        rows = torch.stack([x_t, x0], dim=1).flatten(0, 2)  # [samples * 2 * times, C, H, W]
        return tile_images(to_uint8(rows.float()), num_columns=len(shown)), [states[i].t for i in shown]
