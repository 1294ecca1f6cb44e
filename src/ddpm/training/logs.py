"""Logging of numbers and pictures: to the loggers of a run, and to PNG files in its folder."""

import io
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from PIL import Image
from torch import Tensor

from ddpm.base.atomic import write_atomically
from ddpm.base.image_grid import annotate
from ddpm.training.turn import NETWORK


def ends_step(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this batch is the last micro-batch of its optimizer step."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def is_log_step(trainer: Trainer, batch_idx: int) -> bool:
    """Whether numbers are logged after this batch. Only such steps may synchronize with the device."""
    due = trainer.global_step % trainer.log_every_n_steps == 0 or trainer.global_step == trainer.max_steps
    return due and ends_step(trainer, batch_idx)


def log_name(turn: str, name: str) -> str:
    """The name of a logged number of a turn. Numbers of the model's own network omit the name of the turn."""
    return f"train/{name}" if turn == NETWORK else f"train/{turn}/{name}"


def log_numbers(trainer: Trainer, numbers: dict[str, float]) -> None:
    """Log to all loggers at the current optimizer step. Called on all ranks, written by the first."""
    for logger in trainer.loggers:
        logger.log_metrics(numbers, step=trainer.global_step)


def picture_path(trainer: Trainer, name: str) -> Path:
    return Path(trainer.default_root_dir) / name / f"{trainer.global_step:08d}.png"


@rank_zero_only
def log_picture(trainer: Trainer, name: str, picture: Tensor, caption: str) -> Path:
    """Write a picture, uint8 `[H, W, 3]`, below its caption, to RUN/NAME/STEP.png and to loggers of pictures."""
    picture = annotate(picture, caption)
    path = picture_path(trainer, name)
    image = Image.fromarray(picture.numpy())
    file = io.BytesIO()
    image.save(file, "png")
    try:
        write_atomically(path, file.getvalue())
    except OSError as error:
        rank_zero_warn(f"{path} could not be written: {error}; the run continues")
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [image], step=trainer.global_step, caption=[caption])
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture.numpy(), trainer.global_step, dataformats="HWC")
    return path
