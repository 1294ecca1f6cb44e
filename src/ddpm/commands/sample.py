"""sample.py: generate images with a trained model, or run a task with it (task=NAME).

Images are written batch by batch; the same command continues an interrupted generation. A task writes pictures, the
arrays they show, and numbers.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.base.atomic import atomic_write, write_atomically
from ddpm.base.image_grid import annotate, save_gif, tile_by_class, tile_images
from ddpm.base.images import to_uint8
from ddpm.base.types import Cond
from ddpm.checkpoint.groups import UNGUIDED
from ddpm.checkpoint.reading import holding
from ddpm.commands.dry_run import cost_of_one_image, require_memory_for_images
from ddpm.config import analytic, build, load, wiring
from ddpm.config.checkpoint_path import checkpoint_path, fetch_checkpoints
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.sources.base import sha256_of_parts
from ddpm.diffusion.conditions.base import Condition
from ddpm.diffusion.samplers.base import State
from ddpm.generation.datamodule import GenerationDataModule
from ddpm.generation.identity import circumstances, explain_kept, identity, report_progress, run_folder_of, stem
from ddpm.generation.image_writer import ImageWriter
from ddpm.generation.module import GenerationModule
from ddpm.generation.progress import GenerationProgress
from ddpm.generation.record import record_for
from ddpm.generation.stores import STORES
from ddpm.generation.stores.base import GIF, save_png
from ddpm.generation.stores.first_images import FirstImages
from ddpm.model.diffusion_model import DiffusionModel, refuse_without_prior, tasks_with_images
from ddpm.model.requests import resolve_request
from ddpm.runs import launch
from ddpm.runs.console import quiet_libraries
from ddpm.runs.lease import has_leftovers, lock_folder
from ddpm.tasks.base import Model, Outcome


@holding()
def run_sample(config: DictConfig) -> None:
    quiet_libraries()
    config = fetch_checkpoints(config)
    if config.task is None:
        generate(config)
    else:
        run_task(config)


def generate(config: DictConfig) -> None:
    if config.get("data"):
        raise ValueError("data has no effect on the generation of images; leave it out, or choose a task with images")
    check.positive_int("batch_size", config.batch_size)
    check.positive_int_or_none("num_samples", config.num_samples)
    make_store = STORES[check.one_of("format", config.format, STORES)]
    check.boolean("gif", config.gif)
    path = checkpoint_path(config.ckpt)
    model, stored = load_changed(path, config, load.changes(config))
    load.refuse_without_samples(model, path)
    model.use_for_prediction(config.weights, config.seed)
    size = set_size(model, config.size)
    data, picture, requested, captions = prepare_samples(config, model)
    require_memory_for_images(model, min(config.batch_size, data.num_samples))
    trainer = build.trainer(config)
    analytic.prepare(model, stored, path, trainer)
    name = f"samples_{stem(path)}_{model.predict_weights}_{config.format}{size}"
    labels = data.labels_of(torch.arange(data.num_samples))
    about = {"format": config.format, "num_samples": data.num_samples, **requested, **identity(stored, model, trainer)}
    to_record = about, circumstances(config, trainer), "generation.json"
    record = record_for(config.out, run_folder_of(path) / name, to_record, make_store.grows, "grid.png")
    folder = record.path.parent
    store = make_store(folder, data.num_samples, model.image_shape, labels, captions)
    data.done_mask = store.done_mask
    writer = ImageWriter(store, record, picture)
    finished = writer.is_finished()
    lacks_gif = config.gif and not (finished and store.holds(GIF, writer.gif))
    locks = launch.is_first_process() and (lacks_gif or not finished or has_leftovers(folder))
    with explain_kept(store), lock_folder(folder, "out=") if locks else nullcontext():
        record.refuse_to_mix(store.grows, has_images=any(store.stored()) or writer.picture.exists())
        if not finished:
            num_found = int(store.done_mask().sum())
            report_progress(num_found, store, record)
            trainer.callbacks += [writer, GenerationProgress(data.num_samples, num_found)]
            trainer.predict(GenerationModule(model), data, return_predictions=False)
        else:
            writer.adopt()
        if lacks_gif:
            draw_gif(trainer, model, data, writer)
    print_files(folder, data.num_samples, finished)


def load_changed(path: Path, config: DictConfig, changes: DictConfig) -> tuple[DiffusionModel, DictConfig]:
    """The model of a checkpoint with the changes and the negative prompt of the command, and its configuration."""
    if config.negative_prompt is None:
        return load.from_checkpoint(path, changes)
    if (config.get("guidance") or UNGUIDED)["_target_"] == UNGUIDED["_target_"]:
        raise ValueError("negative_prompt has an effect with guidance only: add guidance=classifier_free")
    try:
        return load.from_checkpoint(path, OmegaConf.merge(changes, {"cond": {"negative": str(config.negative_prompt)}}))
    except load.UnknownField as error:
        if error.field != "cond.negative":
            raise
        reason = "negative_prompt has no effect on a model without captions (cond=caption); leave it out"
        raise ValueError(reason) from None


def set_size(model: DiffusionModel, size: Any) -> str:
    """Generate images of another size (Rombach et al. 2022, section 4.3.2). Returns a suffix for the folder's name."""
    if size is None:
        return ""
    model.image_shape = (model.image_shape[0], *check.height_width("size", size))
    cost_of_one_image(model)  # only to raise the network's errors early
    return f"_{model.image_shape[1]}x{model.image_shape[2]}"


Picture = Callable[[torch.Tensor], torch.Tensor]


def prepare_samples(
    config: DictConfig, model: DiffusionModel
) -> tuple[GenerationDataModule, Picture, dict[str, Any], Sequence[str] | None]:
    """The samples to generate, the function that draws their grid, the requested conditions for the record, and the
    texts through which samples cycle."""
    refuse_without_prior(model)
    rows, names, about, texts = resolve_request(model.sample_condition, config["class"], config.prompt, otherwise="all")
    num = (64 if len(names) == 1 else 8 * len(names)) if config.num_samples is None else config.num_samples
    if config.format == "grid" and num > FirstImages.NUM_FIRST:
        check.fail("num_samples", num, f"at most {FirstImages.NUM_FIRST} for one grid; choose format=png or npz")

    def picture(first: torch.Tensor) -> torch.Tensor:
        kinds = list(dict.fromkeys(names))
        return tile_by_class(first, [kinds.index(names[k % len(names)]) for k in range(len(first))], kinds.__getitem__)

    return GenerationDataModule(num, config.batch_size, conditions=rows), picture, about, texts


@rank_zero_only
def draw_gif(
    trainer: Trainer, model: DiffusionModel, data: GenerationDataModule, writer: ImageWriter, num_frames: int = 50
) -> None:
    """Write an animation of the sampling process for the samples of the grid."""
    times = model.sampler.times(model.sampler.process.T)[1:]
    chosen = torch.linspace(0, len(times) - 1, min(num_frames, len(times))).round().int().tolist()
    shown = {times[i] for i in chosen}
    frames: list[torch.Tensor] = []

    def watch(state: State) -> None:
        if state.t in shown:
            tiles = tile_images(to_uint8(model.codec.decode(state.x_t).float()))
            frames.append(annotate(tiles, f"t = {state.t}"))

    model.on_sampling_step = watch
    model.to(trainer.strategy.root_device)  # Lightning moves it to the CPU after predict
    batch = {name: conditions.to(model.device) for name, conditions in data.first(writer.store.num_first).items()}
    with model.inference(trainer.precision_plugin.forward_context()):
        GenerationModule(model).predict_step(batch, 0)
    with atomic_write(writer.gif) as partial:
        save_gif(partial, frames)
        writer.store.seal(GIF, partial.read_bytes())


@rank_zero_only
def print_files(folder: Path, num_samples: int, finished: bool) -> None:
    print(f"{num_samples} samples in {folder}" + (", all of them stored before" if finished else ""))
    print_paths(folder)


def print_paths(folder: Path) -> None:
    for path in sorted(folder.glob("[!.]*")):
        print(f"  {path}")


def run_task(config: DictConfig) -> None:
    """Run a task on one device, in this process."""
    task = wiring.instantiate(config.task, "task")
    if getattr(task, "idle", {}).get("sampler.steps") and config.get("sampler"):
        config.sampler.steps = None  # the option's default, which may not fit the model
    check.positive_int("batch_size", config.batch_size)
    if config.get("data") and "images" not in config.task:
        raise ValueError("data has no effect on a task that reads no data set; leave it out")
    path = checkpoint_path(config.ckpt)
    model, stored = load_model(path, config)
    name = config.task._target_.split(".")[-2]
    default = run_folder_of(path) / f"{name}_{stem(path)}_{model.predict_weights}"
    trainer = build.trainer(config)
    if trainer.world_size > 1:
        raise ValueError(f"a task runs on one device, but there are {trainer.world_size} processes: trainer.devices=1")
    analytic.prepare(model, stored, path, trainer)
    model.to(trainer.strategy.root_device)
    with model.inference(trainer.precision_plugin.forward_context()):
        request = resolve_request(model.sample_condition, config["class"], config.prompt, otherwise="none")
        if config.get("guidance") and stored.guidance._target_.endswith(".ClassifierFree"):
            refuse_idle_guidance(model.sample_condition, request.rows)
        chosen = {part: OmegaConf.to_container(config[part]) for part in ("task", "data") if config.get(part)}
        about = {**chosen, **request.about, **identity(stored, model, trainer)}
        about["files"] = named_files(about["task"])
        to_record = about, circumstances(config, trainer), f"{name}_generation.json"
        record = record_for(config.out, default, to_record, grows=False, results=f"{name}.json")
        folder = record.path.parent
        with lock_folder(folder, "out="):
            record.refuse_to_mix(grows=False, has_images=(folder / f"{name}.json").exists())
            data = task_data(config, stored, model.condition)
            with wiring.naming_fields(task, "task"):
                outcome = task(task_model(model, data, config.batch_size, request.rows))
            record.write()
            write_outcome(folder, name, outcome, about)


def refuse_idle_guidance(condition: Condition, rows: Cond) -> None:
    """Raise ValueError if samples have the condition that guidance moves them away from, and no other."""
    dropped = condition.unconditional(rows) if rows else {}
    if rows and all(torch.equal(rows[name], dropped[name]) for name in rows):
        raise ValueError("guidance has no effect on a task without a class or prompt: add class= or prompt=")


def named_files(task: dict[str, Any]) -> dict[str, str]:
    """sha256 of what the fields of a task name: a file, the checkpoint or folder of weights in `base`, or the file or
    folder of images in `small`."""
    found = {}
    for field, value in task.items():
        if type(value) is str:
            path = checkpoint_path(value, f"task.{field}") if field == "base" else Path(value)
            files = sorted(path.rglob("*")) if field in ("base", "small") and path.is_dir() else [path]
            if files := [each for each in files if each.is_file()]:
                found[field] = sha256_of_parts(each.read_bytes() for each in files)
    return found


def load_model(path: Path, config: DictConfig) -> tuple[DiffusionModel, DictConfig]:
    """The model and its configuration. A data set chosen by the command does not change the model."""
    changes = load.changes(config)
    model, stored = load_changed(path, config, OmegaConf.masked_copy(changes, set(changes) - {"data"}))
    load.refuse_without_samples(model, path)
    model.use_for_prediction(config.weights, config.seed)
    return model, stored


def task_data(config: DictConfig, stored: DictConfig, condition: Condition) -> ImageDataModule | None:
    """The data set chosen by the command, else that of the training; None if neither has a source."""
    other = OmegaConf.masked_copy(load.changes(config), {"data"} & set(config))
    about = load.merged(stored.copy(), other)
    return build.data(about, condition) if "source" in about.data else None


def task_model(
    model: DiffusionModel, data: ImageDataModule | None, batch_size: int, requested: Mapping[str, torch.Tensor]
) -> Model:
    """requested: conditions `[K, ...]`; row i uses condition i mod K, see `SampleLoader`."""

    def conditions_of(rows: torch.Tensor) -> Cond:
        if model.sample_condition.needs_images:
            name = type(model.sample_condition).__name__
            raise ValueError(f"this model is conditioned on images ({name}): use {tasks_with_images(model)}")
        return {name: table.to(rows.device)[rows % len(table)] for name, table in requested.items()}

    def another(ckpt: str) -> Model:
        path = checkpoint_path(ckpt)
        other, _ = load.from_checkpoint(path, OmegaConf.create())
        load.refuse_without_samples(other, path)
        other.use_for_prediction("best", model.sample_rng.seed)
        return task_model(other.to(model.device), None, batch_size, {})

    return Model(
        denoiser=model.denoiser(model.predict_weights),
        condition=model.sample_condition,
        conditions_of=conditions_of,
        sampler=model.sampler,
        codec=model.codec,
        rng=model.sample_rng,
        image_shape=model.image_shape,
        device=model.device,
        batch_size=batch_size,
        data=data,
        another=another,
        require_memory=lambda num: require_memory_for_images(model, min(batch_size, num), num),
    )


def write_outcome(folder: Path, name: str, outcome: Outcome, about: dict) -> None:
    """Write the pictures, their arrays as NAME.npz, and the numbers and settings as NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for each, picture in outcome.pictures.items():
        (folder / each).parent.mkdir(exist_ok=True)
        save_png(folder / f"{each}.png", picture.numpy())
    with atomic_write(folder / f"{name}.npz") as partial, open(partial, "wb") as file:
        np.savez(file, **{key: array.cpu().numpy() for key, array in outcome.arrays.items()})
    write_atomically(folder / f"{name}.json", json.dumps({**outcome.numbers, **about}, indent=2).encode())
    print("\n".join([*outcome.lines, f"{name} in {folder}"]))
    print_paths(folder)
