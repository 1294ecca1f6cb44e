"""Targets of evaluate.py: the images of a model in each requested variant, or images from a folder."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from ddpm.base import check
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.config import analytic, build, load
from ddpm.config.run_settings import differing_settings, read_config, run_labels
from ddpm.data.any_images import image_data, named_as
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.pixels import ImageData
from ddpm.diffusion.conditions.base import LABEL, ClassLabel, NoCondition
from ddpm.evaluation.evaluation_callback import StoredImages
from ddpm.evaluation.reference import ImageReference, Reference, ReferenceBatch, StatisticsReference
from ddpm.evaluation.sweeps.base import Variant
from ddpm.generation.datamodule import GenerationDataModule
from ddpm.generation.identity import circumstances, describe_groups, identity, is_of_a_run, run_folder_of, stem
from ddpm.generation.image_writer import ImageWriter
from ddpm.generation.record import GenerationRecord, folder_of
from ddpm.generation.stores.row_store import RowStore
from ddpm.interop.hub import describe_path
from ddpm.metrics.classes import describe_classes
from ddpm.metrics.protocol import short_digest
from ddpm.metrics.reference_cache import ReferenceCache
from ddpm.metrics.statistics import holds_images, holds_statistics
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.model.requests import sample_labels

MOST_SAMPLES = 50_000  # as in published results


@dataclass
class EvaluationTarget:
    """Images to be measured: those in `stored`, and those that `model` generates for the other numbers.

    about: the subject of the result. folder: the default folder of the result. run: the name of its run among those
    that are measured. variant: the variant of a sweep, or None.
    """

    name: str
    model: DiffusionModel | None
    samples: GenerationDataModule
    stored: StoredImages | None
    writer: ImageWriter | None
    about: dict[str, Any]
    folder: Path
    run: str = ""
    variant: Variant | None = None


def evaluation_targets(
    config: DictConfig, paths: list[Path], variants: list[Variant], trainer: Trainer
) -> Iterator[tuple[EvaluationTarget, Reference]]:
    if config.images is not None:
        yield target_of_images(config)
    runs = run_names(paths) if paths else {}
    steps_matter = len(set(runs.values())) < len(paths) or len(paths) == 1
    for path in paths:
        real: Reference | None = None
        for variant, repeat in itertools.product(variants, range(config.num_repeats)):
            model, stored = load.from_checkpoint(path, variant.changes)
            load.refuse_without_samples(model, path)
            model.use_for_prediction(config.weights, config.seed + repeat)
            analytic.prepare(model, stored, path, trainer)
            real = real or build_reference(config, stored, model.image_shape, "the samples of this model")
            target = target_of_model(config, path, model, stored, real, trainer)
            target.variant = variant if variant.name else None
            target.run = runs[path]
            words = [target.run, stem(path) if steps_matter else "", variant.title]
            words += [f"seed {config.seed + repeat}"] if config.num_repeats > 1 else []
            target.name = " ".join(filter(None, words))
            yield target, real


def run_names(paths: list[Path]) -> dict[Path, str]:
    """The name of the run of each checkpoint by the settings that differ, or by its place below a common folder."""
    folders = {run_folder_of(path): None for path in paths}
    common = os.path.commonpath([folder.absolute().parent for folder in folders])
    columns, _ = differing_settings([read_config(folder) for folder in folders])
    names = run_labels(columns, [os.path.relpath(folder, common) for folder in folders])
    of_folder = dict(zip(folders, names, strict=True))
    return {path: of_folder[run_folder_of(path)] for path in paths}


def target_of_images(config: DictConfig) -> tuple[EvaluationTarget, Reference]:
    """The images of a folder, or a fixed random subset for a smaller num_samples: folders may be sorted by class."""
    if config.reference is None and not config.get("data"):
        raise ValueError("images must be compared with something: choose data=..., or reference=PATH")
    if config["class"] is not None:
        raise ValueError("class has no effect on stored images; leave it out")
    path = Path(config.images)
    with named_as("images", path):
        data = image_data(config.images)
    num = len(data.split("train"))
    if config.num_samples is not None:
        num = check.integer("num_samples", config.num_samples, 1, num)
    real = build_reference(config, config, data.image_shape, f"images={path}")
    images = renumber_classes(data.split("train", num), data.class_names, real)
    samples = GenerationDataModule(num, config.batch_size, images=images)  # labels of the images, if any
    samples.done_mask = lambda: torch.ones(num, dtype=torch.bool)
    about = {"images": str(path), "content_hash": data.content_hash("train", num), "run": path.name}
    target = EvaluationTarget(path.name, None, samples, images, None, about, path.parent)
    return target, real


def renumber_classes(images: ImageData, names: tuple[str, ...], real: Reference) -> ImageData:
    """The images with the class numbers of the real ones, if both have class names; -1 for an unknown class.

    A folder with only some of the classes numbers them differently.
    """
    known = real.data.class_names if isinstance(real, ImageReference) else ()
    if not names or not known or names == known:
        return images
    numbers = torch.tensor([*(known.index(name) if name in known else -1 for name in names), -1])
    return replace(images, labels=numbers[images.labels])  # -1, no label, is the last


def target_of_model(
    config: DictConfig, path: Path, model: DiffusionModel, stored: DictConfig, real: Reference, trainer: Trainer
) -> EvaluationTarget:
    num = min(real.num or MOST_SAMPLES, MOST_SAMPLES) if config.num_samples is None else config.num_samples
    samples, requested = samples_to_make(config, model, num, real)
    images = {**identity(stored, model, trainer), **requested}
    of_run = run_folder_of(path)
    store = writer = None
    if check.boolean("keep_images", config.keep_images):
        named = {name: value for name, value in images.items() if name != "cond" or config.get("cond")}  # old names
        name = f"{stem(path)}_{model.predict_weights}"
        folder = folder_of(images, of_run / "generated" / f"{name}_{short_digest(named)}", f"{name}_*")
        store = RowStore(folder, num, model.image_shape)
        record = GenerationRecord(folder, images, circumstances(config, trainer))
        record.restore()
        record.refuse_to_mix(grows=True, has_images=any(store.stored()))
        writer, samples.done_mask = ImageWriter(store, record), store.done_mask
    about = {
        "ckpt": describe_path(path), "run": of_run.name, "step": checkpoint_step(path), **describe_groups(images),
        **({"labels": describe_classes(samples.labels_of(torch.arange(num)))} if requested else {}),
    }  # fmt: skip
    return EvaluationTarget(stem(path), model, samples, store, writer, about, of_run / "evaluations")


def samples_to_make(
    config: DictConfig, model: DiffusionModel, num: int, real: Reference
) -> tuple[GenerationDataModule, dict[str, Any]]:
    """The samples to generate, with classes or with conditions of real images, such as captions or small images."""
    labels = sample_labels(config["class"], model.sample_condition)
    conditions = {} if labels is None else {LABEL: torch.tensor(labels)}
    requested = {} if labels is None else {"class": [model.sample_condition.name(label) for label in labels]}
    if isinstance(model.sample_condition, NoCondition | ClassLabel) and not model.needs_images:
        return GenerationDataModule(num, config.batch_size, conditions), requested
    if not isinstance(real, ImageReference):
        raise ValueError(f"reference={config.reference} must contain images: this model generates samples from them")
    images = replace(real.images, of_texts=getattr(model.sample_condition, "rows", None))
    if images.of_texts is not None and images.captions is None:
        raise ValueError(f"{real.identity['data']} has no captions, from which this model generates samples")
    return GenerationDataModule(num, config.batch_size, images=images), {"conditions_from": real.identity["data_hash"]}


def build_reference(config: DictConfig, stored: DictConfig, shape: tuple[int, int, int], whose: str) -> Reference:
    """shape: of the images that are compared with it, (C, H, W); ValueError for real images of another one."""

    def of_shape(data: ImageDataModule) -> ImageDataModule:
        data.require_shape(shape, whose)
        return data

    if config.reference is not None:
        given = [name for name in ("split", "num_real") if config[name] != {"split": "train", "num_real": None}[name]]
        if given:
            raise ValueError(f"{given[0]} has no effect with reference={config.reference}; leave it out")
        path = Path(config.reference)
        with named_as("reference", path):
            has_moments = holds_statistics(path)
            data = None if has_moments and not holds_images(path) else image_data(path)
        if data is None:
            return StatisticsReference(path)
        if has_moments:
            return ReferenceBatch(path, of_shape(data), ReferenceCache())
        return ImageReference(of_shape(data), "train", None, ReferenceCache())
    if "source" not in stored.data:
        raise ValueError(f"ckpt={config.ckpt} does not say what it was trained on: choose the data, as in data=cifar10")
    data = of_shape(build.data(stored))
    rank_zero_only(data.prepare_data)()
    if config.num_real is not None:
        check.integer("num_real", config.num_real, 1, len(data.split(config.split)))
    return ImageReference(data, config.split, config.num_real, ReferenceCache())


def checkpoint_step(path: Path) -> int | None:
    """The training step of a checkpoint, None for an exported folder of weights."""
    return read_checkpoint(path).get("global_step") if is_of_a_run(path) else None
