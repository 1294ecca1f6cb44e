"""Grids of samples with a fixed seed, so that grids of different steps can be compared."""

from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.base import check
from ddpm.base.image_grid import tile_by_class
from ddpm.base.images import to_uint8
from ddpm.base.types import Cond
from ddpm.data.loader import assemble
from ddpm.data.pixels import ImageData
from ddpm.diffusion.conditions.base import ClassLabel, Condition
from ddpm.diffusion.conditions.caption_text import Caption
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.training.callbacks.interruption import sampling_progress, stop_if_signalled
from ddpm.training.callbacks.periodic import PeriodicWork
from ddpm.training.logs import log_picture, picture_path
from ddpm.training.module import DiffusionModule


def preview_inputs(trainer: Trainer, model: DiffusionModel, ids: Tensor) -> tuple[Cond, Tensor | None]:
    """The conditions of preview samples, and None: the default conditions. If the model needs images: the conditions
    of real images, held-out ones if possible, and these images."""
    if not model.needs_images:
        return model.sample_condition.default_conditions(ids), None
    batch = real_batch(model, held_out(trainer), ids.cpu())
    return model.sample_condition.of(batch), batch["image"]


def held_out(trainer: Trainer) -> ImageData:
    """The validation split, or the training split if there is none."""
    return trainer.datamodule.split("val" if trainer.datamodule.num_val else "train")


def real_batch(model: DiffusionModel, data: ImageData, ids: Tensor) -> dict[str, Tensor]:
    """Real images for previews, on the model's device."""
    rows = data.indices[ids % len(data)]
    (stored,) = data.pixels.full_reader(persistent=False).read([rows])
    batch = assemble(data.pixels.fields(stored), data.conditions(rows), rows, rows)
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def sample_on_all_ranks(trainer: Trainer, module: DiffusionModule, num: int, weights: str) -> Tensor:
    """Images of the samples 0..num-1 `[num, C, H, W]`, the same for any number of ranks; each rank makes a share."""
    rank, world = trainer.global_rank, trainer.world_size
    each = -(-num // world)
    ids = torch.arange(rank, each * world, world, device=module.device)
    with module.model.inference(trainer.precision_plugin.forward_context()):
        mine = module.model.generate(ids, weights, *preview_inputs(trainer, module.model, ids)).float()
    stop_if_signalled(trainer)
    everyone = trainer.strategy.all_gather(mine).reshape(world, each, *mine.shape[1:])
    return everyone.transpose(0, 1).flatten(0, 1)[:num]


def draw_samples(module: DiffusionModule, images: Tensor) -> Tensor:
    """A picture of the samples 0, 1, ..., uint8 `[B, C, H, W]`, with a row for each class or caption of the model."""
    rows = row_names(module.model.sample_condition)
    return tile_by_class(images, [i % len(rows) for i in range(len(images))], rows.__getitem__)


def row_names(condition: Condition) -> Sequence[str]:
    """Of the classes or captions through which samples cycle; one name if there are none."""
    if isinstance(condition, ClassLabel):
        return [condition.name(label) for label in range(condition.num_classes)]
    return condition.default_prompts if isinstance(condition, Caption) else [""]


class SampleGrid(PeriodicWork):
    """num_samples: images in a grid, or a few less, so that the rows of all classes are full.

    every_n_steps: optimizer steps between grids; another follows after training.

    weights: the weights, of `raw`, `ema` and `ema_DECAY`, for each of which a grid is drawn.
    """

    def __init__(self, num_samples: int, every_n_steps: int, weights: list[str]) -> None:
        super().__init__(check.positive_int("every_n_steps", every_n_steps))
        self.num_samples = check.positive_int("num_samples", num_samples)
        self.names = list(weights)

    def on_fit_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        for name in self.names:
            if name != "ema":
                module.model.weights(name)  # raises for a wrong name

    def is_done(self, trainer: Trainer, module: DiffusionModule) -> bool:
        return all(picture_path(trainer, f"samples/{name}").exists() for name in self.drawn_names(module))

    def drawn_names(self, module: DiffusionModule) -> list[str]:
        return [name for name in self.names if name != "ema" or module.averages.decays]

    def num_in_full_rows(self, condition: Condition) -> int:
        num_rows = len(row_names(condition))
        return self.num_samples // num_rows * num_rows or self.num_samples

    def work(self, trainer: Trainer, module: DiffusionModule) -> None:
        num = self.num_in_full_rows(module.model.sample_condition)
        for name in self.drawn_names(module):
            with self.tolerated(trainer, f"the grid of samples of the {name} weights"):
                with sampling_progress(trainer, module, f"drawing samples of {name} weights"):
                    images = sample_on_all_ranks(trainer, module, num, name)
                sampler, guidance = module.model.sampler, module.model.config["guidance"]
                steps = sampler.steps or sampler.process.T
                caption = f"step {trainer.global_step}, {name} weights, {type(sampler).__name__}, {steps} steps"
                if "scale" in guidance:
                    caption += f", guidance of scale {guidance['scale']:g}"
                log_picture(trainer, f"samples/{name}", draw_samples(module, to_uint8(images)), caption)
