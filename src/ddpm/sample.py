"""Images from a trained model, written as they come; the same command continues what was interrupted."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ddpm import build, check
from ddpm.atomic import whole
from ddpm.console import quiet
from ddpm.data.generation import GenerationDataModule
from ddpm.diffusion.samplers.base import State
from ddpm.metrics.images import to_uint8
from ddpm.metrics.protocol import device_name
from ddpm.pictures import grid, save_gif
from ddpm.training.callbacks.image_writer import ImageWriter
from ddpm.training.callbacks.progress import GenerationProgress
from ddpm.training.callbacks.sample_grid import sampling
from ddpm.training.generation_record import GenerationRecord, weights_hash
from ddpm.training.module import DiffusionModule
from ddpm.training.stores import STORES
from ddpm.training.stores.base import ImageStore


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
    record = GenerationRecord(folder, identity(config, stored, module, trainer), made_with(config, trainer))
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


def identity(config: DictConfig, stored: DictConfig, module: DiffusionModule, trainer: Trainer) -> dict[str, Any]:
    """All that decides the images, but for their rounding. stored: the model's configuration with what was changed."""
    groups = ("schedule", "process", "objective", "denoiser", "codec", "model")
    return {
        "format": config.format,
        "num_samples": config.num_samples,
        "image_shape": list(module.image_shape),
        "seed": config.seed,
        "sampler": module.sampler.describe(),
        "steps": module.sampler.steps or module.sampler.process.T,
        "weights": module.describe_weights(module.predict_weights),
        "weights_sha256": weights_hash(module.weights(module.predict_weights)),
        "precision": str(trainer.precision),
        **{group: OmegaConf.to_container(stored[group], resolve=True) for group in groups},
    }


def made_with(config: DictConfig, trainer: Trainer) -> dict[str, Any]:
    """What changes the rounding."""
    return {
        "batch_size": config.batch_size,
        "processes": trainer.world_size,
        "device": device_name(trainer.strategy.root_device),
        "torch": torch.__version__,
    }


@rank_zero_only
def say_what_is_there(num_found: int, num_samples: int, record: GenerationRecord) -> None:
    if num_found:
        print(f"continuing: {num_found:,} of {num_samples:,} are there", flush=True)
    for earlier in record.earlier():
        changes = [f"{name} {was} before, {record.made_with[name]} now" for name, was in earlier.items()]
        changed = [text for text, name in zip(changes, earlier, strict=True) if earlier[name] != record.made_with[name]]
        print(f"images may differ by rounding from those of an uninterrupted run: {', '.join(changed)}", flush=True)


@contextmanager
def explained_if_full(store: ImageStore) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        kept = f"{int(store.there().sum()):,} of {store.num_samples:,} samples are kept"
        remedy = "free some space and type the same command again, and it continues"
        raise ValueError(f"out={store.folder} has no room left ({error.strerror}): {kept}; {remedy}") from error


def beside(checkpoint: Path) -> Path:
    """The folder of the run that made a checkpoint; a folder of weights is its own."""
    return checkpoint if checkpoint.is_dir() else checkpoint.parent.parent


def title(checkpoint: Path) -> str:
    """A checkpoint's name without its ending, which a folder's name has none of."""
    return checkpoint.name if checkpoint.is_dir() else checkpoint.stem


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
