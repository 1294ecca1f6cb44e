"""Images from a trained model, written as they come; the same command continues what was interrupted."""

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from ddpm import build, check
from ddpm.atomic import whole
from ddpm.console import quiet
from ddpm.data.generation import GenerationDataModule
from ddpm.diffusion.samplers.base import State
from ddpm.generation import beside, explained_if_full, identity, made_with, say_what_is_there, title
from ddpm.metrics.images import to_uint8
from ddpm.pictures import grid, save_gif
from ddpm.training.callbacks.image_writer import ImageWriter
from ddpm.training.callbacks.progress import GenerationProgress
from ddpm.training.callbacks.sample_grid import sampling
from ddpm.training.generation_record import GenerationRecord
from ddpm.training.module import DiffusionModule
from ddpm.training.stores import STORES


def run(config: DictConfig) -> None:
    quiet()
    data = GenerationDataModule(config.num_samples, config.batch_size)
    make_store = STORES[check.one_of("format", config.format, STORES)]
    check.boolean("gif", config.gif)
    path = build.checkpoint_path(config.ckpt)
    module, stored = build.from_checkpoint(path, build.changes(config))
    module.use_for_prediction(config.weights, config.seed)
    trainer = build.trainer(config)
    folder = Path(config.out or beside(path) / f"samples_{title(path)}_{module.predict_weights}_{config.format}")
    store = make_store(folder, data.num_samples, module.image_shape)
    about = {"format": config.format, "num_samples": config.num_samples, **identity(stored, module, trainer)}
    record = GenerationRecord(folder, about, made_with(config, trainer))
    data.there = store.there
    num_found = int(store.there().sum())
    record.refuse_to_mix(store.grows, images_are_there=num_found > 0)
    writer = ImageWriter(store, record)
    finished = writer.is_finished()
    with explained_if_full(store):
        if not finished:
            say_what_is_there(num_found, data.num_samples, record)
            trainer.callbacks += [writer, GenerationProgress(data.num_samples, num_found)]
            trainer.predict(module, data, return_predictions=False)
        if config.gif and not (finished and writer.gif.exists()):
            draw_gif(trainer, module, writer.gif, store.num_first)
    announce(folder, data.num_samples, finished)


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
    with whole(path) as partial:
        save_gif(partial, frames)


@rank_zero_only
def announce(folder: Path, num_samples: int, finished: bool) -> None:
    print(f"{num_samples} samples in {folder}" + (", all there already" if finished else ""))
    for path in sorted(folder.iterdir()):
        print(f"  {path}")
