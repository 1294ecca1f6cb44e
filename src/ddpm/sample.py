"""Images from a trained model, written as they come."""

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from ddpm import build, check
from ddpm.console import quiet
from ddpm.data.generation import GenerationDataModule
from ddpm.diffusion.samplers.base import State
from ddpm.metrics.images import to_uint8
from ddpm.pictures import grid, save_gif
from ddpm.training.callbacks.image_writer import FORMATS, ImageWriter
from ddpm.training.callbacks.progress import GenerationProgress
from ddpm.training.callbacks.sample_grid import sampling
from ddpm.training.module import DiffusionModule


def run(config: DictConfig) -> None:
    quiet()
    data = GenerationDataModule(config.num_samples, config.batch_size)
    check.one_of("format", config.format, FORMATS)
    check.boolean("gif", config.gif)
    path = build.checkpoint_path(config.ckpt)
    module, _ = build.from_checkpoint(path, build.changes(config))
    module.use_for_prediction(config.weights, config.seed)
    folder = Path(config.out or beside(path) / f"samples_{path.stem}_{module.predict_weights}")
    writer = ImageWriter(folder, config.format, data.num_samples, module.image_shape)
    trainer = build.trainer(config)
    trainer.callbacks += [writer, GenerationProgress(data.num_samples)]
    trainer.predict(module, data, return_predictions=False)
    if config.gif:
        draw_gif(trainer, module, folder / "denoising.gif", min(data.num_samples, writer.GRID))
    announce(folder, data.num_samples)


def beside(checkpoint: Path) -> Path:
    """The folder of the run that made a checkpoint; the folder of a diffusers model is its own."""
    return checkpoint if checkpoint.is_dir() else checkpoint.parent.parent


@rank_zero_only
def draw_gif(trainer: Trainer, module: DiffusionModule, path: Path, num: int, num_frames: int = 50) -> None:
    """The samples of the grid coming into being, from noise to the image."""
    times = module.sampler.times(module.sampler.process.T)[1:]
    chosen = torch.linspace(0, len(times) - 1, min(num_frames, len(times))).round().int().tolist()
    shown = {times[i] for i in chosen}
    frames: list[torch.Tensor] = []

    def watch(state: State) -> None:
        if state.t in shown:
            frames.append(grid(to_uint8(module.codec.decode(state.x_t).float())))

    module.watch_sampling = watch
    module.to(trainer.strategy.root_device)  # Lightning left it on the CPU
    with sampling(trainer, module):
        module.sample(torch.arange(num, device=module.device), module.predict_weights)
    save_gif(path, frames)


@rank_zero_only
def announce(folder: Path, num_samples: int) -> None:
    print(f"{num_samples} samples in {folder}")
    for path in sorted(folder.iterdir()):
        print(f"  {path}")
