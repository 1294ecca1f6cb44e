"""How good images are: a trained model's or any others, measured against real ones, and stored with the protocol."""

import glob
import itertools
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ddpm import analytic, build, check, measure, sampler_sweep
from ddpm.console import quiet
from ddpm.data.any_images import image_data
from ddpm.data.generation import GenerationDataModule
from ddpm.data.pixels import ImageData
from ddpm.evaluation import neighbours, sweep_table, table
from ddpm.evaluation.reference import Images, Reference, Statistics
from ddpm.evaluation.sweep_table import SweepPoint
from ddpm.generation import beside, explained_if_full, identity, made_with, say_what_is_there, title
from ddpm.measure import ModelMeasure, ModelRun
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.memorization import Memorization
from ddpm.metrics.protocol import (
    Environment,
    EvaluationProtocol,
    Result,
    device_name,
    digest,
    result_name,
    write_result,
)
from ddpm.metrics.reference_cache import ReferenceCache
from ddpm.metrics.statistics import holds_statistics, write_statistics
from ddpm.sampler_sweep import Variant
from ddpm.training.callbacks.image_writer import ImageWriter
from ddpm.training.callbacks.progress import GenerationClock, GenerationProgress
from ddpm.training.callbacks.scoring import Scoring, StoredImages
from ddpm.training.generation_record import GenerationRecord, Timing, weights_hash
from ddpm.training.module import DiffusionModule
from ddpm.training.stores.base import save_png
from ddpm.training.stores.row_store import RowStore
from ddpm.training.wandb_run import reopened

MOST_SAMPLES = 50_000  # what published figures are of


@dataclass
class Subject:
    """Images to be measured: those that `stored` has, and those that `module` makes of the numbers that it lacks.

    about: what they are, for the result. folder: where the result goes, unless the user says. sampler: its name in a
    sweep.
    """

    name: str
    module: LightningModule
    samples: GenerationDataModule
    stored: StoredImages | None
    writer: ImageWriter | None
    about: dict[str, Any]
    folder: Path
    sampler: str = ""


class NothingToMake(LightningModule):
    """Stands where a model would, for images that are there."""

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise AssertionError("all images are there")


def run(config: DictConfig) -> None:
    quiet()
    check.positive_int("num_repeats", config.num_repeats)
    config, measures = without_measures(config)
    if not config.metric:
        refuse_what_is_for_images(config)
    paths = checkpoints(config, measures)
    trainer = build.trainer(config)
    if config.metric:
        measure_images(config, paths, trainer)
    for path in paths or [None]:
        measure_model(config, measures, path, trainer)


def without_measures(config: DictConfig) -> tuple[DictConfig, list[ModelMeasure]]:
    """The configuration with the scores of images alone, and the measures of models."""
    parts = build.instantiate(config.metric, "metric") if config.get("metric") else {}
    parts = {name: part for name, part in parts.items() if part is not None}
    if not parts:
        raise ValueError("metric must be given, as metric=fid")
    measures = {name: part for name, part in parts.items() if measure.is_measure(part)}
    config = config.copy()
    config.metric = OmegaConf.masked_copy(config.metric, [name for name in parts if name not in measures])
    return config, list(measures.values())


def refuse_what_is_for_images(config: DictConfig) -> None:
    given = [field for field in ("sweep", "save_statistics", "images", "reference") if config.get(field)]
    given += ["num_repeats"] if config.num_repeats > 1 else []
    if given:
        raise ValueError(f"{given[0]} has no effect without a metric of images, as metric=fid; leave it out")


def measure_images(config: DictConfig, paths: list[Path], trainer: Trainer) -> None:
    variants = sampler_sweep.variants(config)
    evaluator = build.evaluator(config, data_name(config, paths)).to("cpu")  # missing weights show now
    say_what_is_left_out(evaluator)
    if config.save_statistics and not any(score.moments for score in evaluator.scores):
        raise ValueError("save_statistics needs a metric of mean and covariance, as metric=fid")
    if config.get("sweep"):
        sampler_sweep.refuse_what_cannot_run(paths, variants, build.changes(config))
    results: dict[str, Result] = {}
    swept: dict[str, dict[str, SweepPoint]] = {}  # by checkpoint and result
    shown: str | None = None  # the reference that the evaluator knows
    for subject, reference in subjects(config, paths, variants, trainer):
        if shown != reference.identity["data_hash"]:
            evaluator, shown = evaluator.renewed(), reference.identity["data_hash"]
        evaluator.reset_fake()
        result, timing = measured(config, subject, reference, evaluator, trainer)
        results[subject.name] = result
        if subject.sampler:
            swept.setdefault(result.subject["ckpt"], {})[result_name(result)] = point(subject, result, timing)
    if config.save_statistics:
        save_statistics(Path(config.save_statistics), evaluator, reference)
    for path in paths:
        if str(path) in swept:
            compare_samplers(config, path, swept[str(path)])
    if len(results) > 1 and not swept:
        compare(config, paths, results)


def checkpoints(config: DictConfig, measures: list[ModelMeasure]) -> list[Path]:
    """Every checkpoint that `ckpt` names, each file once however many links lead to it."""
    models = [type(part).__name__ for part in measures if measure.needs_checkpoint(part)]
    if config.metric and (config.ckpt is None) == (config.images is None):
        raise ValueError("ckpt or images must be given, and not both: ckpt=latest, or images=FOLDER")
    if config.ckpt is None:
        if models:
            raise ValueError(f"ckpt must be given, as ckpt=latest: {models[0]} measures a trained model")
        if config.get("sweep"):
            raise ValueError("sweep has no effect without a model; leave it out, or give ckpt")
        if config.num_repeats > 1:
            raise ValueError("num_repeats has no effect on images that are there; leave it out")
        return []
    if not glob.has_magic(str(config.ckpt)):
        return [build.checkpoint_path(config.ckpt)]
    found = {Path(path).resolve(): Path(path) for path in sorted(glob.glob(str(config.ckpt)), reverse=True)}
    if not found:
        check.fail("ckpt", config.ckpt, "a pattern that fits at least one file")
    return sorted(found.values())


def data_name(config: DictConfig, paths: list[Path]) -> str:
    """The data set whose usual features are used."""
    if "name" in config.get("data", {}):
        return str(config.data.name)
    if paths and not paths[0].is_dir():
        return str(build.read_checkpoint(paths[0])["config"]["data"].get("name"))
    return ""


def subjects(
    config: DictConfig, paths: list[Path], variants: list[Variant], trainer: Trainer
) -> Iterator[tuple[Subject, Reference]]:
    if config.images is not None:
        yield made_elsewhere(config)
    for path in paths:
        real: Reference | None = None
        for variant, repeat in itertools.product(variants, range(config.num_repeats)):
            module, stored = build.from_checkpoint(path, variant.changes)
            module.use_for_prediction(config.weights, config.seed + repeat)
            analytic.prepare(module, stored, path, trainer)
            real = real or reference(config, stored)
            subject = of_model(config, path, module, stored, real, trainer)
            subject.sampler = variant.sampler
            subject.name = f"{os.path.relpath(beside(path), common_folder(paths))}/{title(path)} {variant}".rstrip()
            if config.num_repeats > 1:
                subject.name += f" seed {config.seed + repeat}"
            yield subject, real


def common_folder(paths: list[Path]) -> str:
    """Of the runs; 0, 1, ... of two sweeps are told apart by what comes below it."""
    return os.path.commonpath([beside(path).absolute().parent for path in paths])


def made_elsewhere(config: DictConfig) -> tuple[Subject, Reference]:
    """Of more images than are wanted some are drawn, the same in every run: a folder may be sorted by class."""
    if config.reference is None and not config.get("data"):
        raise ValueError("images must be compared with something: choose data=..., or reference=PATH")
    path = Path(config.images)
    data = image_data(config.images)
    num = len(data.split("train"))
    if config.num_samples is not None:
        num = check.integer("num_samples", config.num_samples, 1, num)
    images = data.split("train", num)
    samples = GenerationDataModule(num, config.batch_size)
    samples.there = lambda: torch.ones(num, dtype=torch.bool)
    about = {"images": str(path), "content_hash": data.content_hash("train", num), "run": path.name}
    subject = Subject(path.name, NothingToMake(), samples, Numbered(images), None, about, path.parent)
    return subject, reference(config, config)


@dataclass
class Numbered:
    """Some images of a data set under the numbers 0, 1, ..."""

    images: ImageData

    def read(self, plan: list[Tensor]) -> Iterator[Tensor]:
        return self.images.pixels.reader(persistent=False).read([self.images.indices[ids] for ids in plan])


def of_model(
    config: DictConfig, path: Path, module: DiffusionModule, stored: DictConfig, real: Reference, trainer: Trainer
) -> Subject:
    num = min(real.num or MOST_SAMPLES, MOST_SAMPLES) if config.num_samples is None else config.num_samples
    samples = GenerationDataModule(num, config.batch_size)
    images = identity(stored, module, trainer)
    of_run = beside(path)
    store = writer = None
    if check.boolean("keep_images", config.keep_images):
        folder = of_run / "generated" / f"{title(path)}_{module.predict_weights}_{digest(images)}"
        store = RowStore(folder, num, module.image_shape)
        record = GenerationRecord(folder, images, made_with(config, trainer))
        record.refuse_to_mix(grows=True, images_are_there=bool(store.there().any()))
        writer, samples.there = ImageWriter(store, record), store.there
    about = {
        "ckpt": str(path), "run": of_run.name, "step": step_of(path), "seed": images["seed"],
        **{name: images[name] for name in ("weights", "weights_sha256", "sampler", "steps")},
        "denoiser": said(images["denoiser"]),
    }  # fmt: skip
    return Subject(title(path), module, samples, store, writer, about, of_run / "evaluations")


def reference(config: DictConfig, stored: DictConfig) -> Reference:
    if config.reference is not None:
        given = [name for name in ("split", "num_real") if config[name] != {"split": "train", "num_real": None}[name]]
        if given:
            raise ValueError(f"{given[0]} has no effect with reference={config.reference}; leave it out")
        path = Path(config.reference)
        if holds_statistics(path):
            return Statistics(path)
        return Images(image_data(config.reference), "train", None, ReferenceCache())
    if "source" not in stored.data:
        raise ValueError(f"ckpt={config.ckpt} does not say what it was trained on: choose the data, as in data=cifar10")
    data = build.data(stored)
    rank_zero_only(data.prepare_data)()
    return Images(data, config.split, config.num_real, ReferenceCache())


def measured(
    config: DictConfig, subject: Subject, reference: Reference, evaluator: Evaluator, trainer: Trainer
) -> tuple[Result, Timing | None]:
    """Generates what is not there, measures all, and stores the values. The timing is None where nothing is known."""
    num = subject.samples.num_samples
    scoring = Scoring(evaluator, reference, num, subject.stored)
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, OF_A_SUBJECT)]
    there = subject.samples.there()
    num_found = 0 if there is None else int(there.sum())
    record = subject.writer.record if subject.writer else None
    clock = GenerationClock(device_name(trainer.strategy.root_device), record)
    if num_found < num:
        trainer.callbacks.append(clock)
        if subject.writer:
            say_what_is_there(num_found, num, subject.writer.record)
            trainer.callbacks.append(subject.writer)
        trainer.callbacks.append(GenerationProgress(num, num_found))
    trainer.callbacks.append(scoring)
    with explained_if_full(subject.writer.store) if subject.writer else nullcontext():
        trainer.predict(subject.module, subject.samples, return_predictions=False)
    result = Result.of(
        scoring.values,
        protocol=EvaluationProtocol(**evaluator.provenance(), **reference.identity),
        subject=subject.about,
        environment=environment(trainer),
    )
    folder = Path(config.out) if config.out else subject.folder
    path = folder / f"{result_name(result)}.json"
    store(path, subject.name, result)
    draw_nearest(path, subject, reference, evaluator)
    if not subject.sampler:
        log_to_run(subject.folder.parent, result)
    return result, record.timing() if record else clock.timing


OF_A_SUBJECT = (Scoring, ImageWriter, GenerationProgress, GenerationClock)


def measure_model(config: DictConfig, measures: list[ModelMeasure], path: Path | None, trainer: Trainer) -> None:
    """What a model is measured by besides its images; without a path the measures make their own of `config`."""
    if not measures:
        return
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, OF_A_SUBJECT)]
    if path is None:
        folder = Path(config.out or config.run_dir)
        run = ModelRun(None, config, None, trainer, folder)
        about = {"run": folder.name, **{g: said(config[g]) for g in ("model", "schedule") if config.get(g)}}
    else:
        folder = Path(config.out) if config.out else beside(path) / "evaluations"
        module, stored = build.from_checkpoint(path, build.changes(config))
        module.use_for_prediction(config.weights, config.seed)
        analytic.prepare(module, stored, path, trainer)
        run = ModelRun(module, stored, path, trainer, folder)
        about = {
            "ckpt": str(path), "run": beside(path).name, "step": step_of(path), "seed": config.seed,
            "weights": module.describe_weights(module.predict_weights),
            "weights_sha256": weights_hash(module.weights(module.predict_weights)),
        }  # fmt: skip
    for part in measures:
        estimates, protocol = measure.measured_by(part, run)
        result = Result.of(estimates, protocol=protocol, subject=about, environment=environment(trainer))
        store(folder / f"{result_name(result)}.json", type(part).__name__, result)
        if path is not None:
            log_to_run(beside(path), result)


def environment(trainer: Trainer) -> Environment:
    return Environment(device_name(trainer.strategy.root_device), str(trainer.precision))


def said(part: dict[str, Any]) -> str:
    """ "Clipped()" for a part of a configuration."""
    settings = ", ".join(f"{name}={value}" for name, value in part.items() if not name.startswith("_"))
    return f"{part['_target_'].rpartition('.')[2]}({settings})"


def step_of(path: Path) -> int | None:
    """A folder of weights does not say at which step it was made."""
    return None if path.is_dir() else build.read_checkpoint(path).get("global_step")


@rank_zero_only
def say_what_is_left_out(evaluator: Evaluator) -> None:
    for score in evaluator.left_out:
        print(f"left out: {score.describe()}, since features={evaluator.extractor.name} have no layer {score.layer!r}")


@rank_zero_only
def store(path: Path, name: str, result: Result) -> None:
    write_result(path, result)
    print(name)
    for metric, estimate in result.estimates.items():
        print(f"  {metric}  {table.shown(estimate)}")
    print(f"  stored with its protocol in {path}", flush=True)


@rank_zero_only
def draw_nearest(result: Path, subject: Subject, reference: Reference, evaluator: Evaluator) -> None:
    for score in evaluator.scores:
        if not isinstance(score, Memorization):
            continue
        if subject.stored is None or not isinstance(reference, Images):
            print("  no picture of the nearest images: keep_images=false leaves none to show")
            return
        real, generated = evaluator.real_sets()[score.layer], evaluator.generated[score.layer]
        strip = neighbours.picture(
            neighbours.most_alike(real, generated), subject.stored, reference.images.pixels.reader(False)
        )
        path = result.with_name(f"{result.stem}_nearest_{score.layer}.png")
        save_png(path, strip.numpy())
        print(f"  generated images beside the three nearest real ones in {path}")


@rank_zero_only
def compare(config: DictConfig, paths: list[Path], results: dict[str, Result]) -> None:
    """All results in one table, and as curves where there are several steps."""
    common = Path(os.path.commonpath([beside(path) for path in paths]))
    folder = Path(config.out) if config.out else common / "evaluations"
    name = f"table_{digest([asdict(result) for result in results.values()])}"
    table.write_csv(folder / f"{name}.csv", results)
    print(f"\n{table.text_table(results)}")
    if config.num_repeats > 1:
        print(f"\n{table.spread(results)}")
    print(f"table in {folder / name}.csv")
    if len({result.subject["step"] for result in results.values()} - {None}) > 1:
        table.draw_curves(folder / f"{name}.png", results)
        print(f"curves in {folder / name}.png")


def point(subject: Subject, result: Result, timing: Timing | None) -> SweepPoint:
    sampler = subject.module.sampler
    steps = len(sampler.times(sampler.process.T)) - 1
    cost = (timing.seconds, timing.device) if timing else ()
    return SweepPoint(subject.sampler, steps, sampler.evaluations(steps), result.estimates, *cost)


@rank_zero_only
def compare_samplers(config: DictConfig, path: Path, measured: dict[str, SweepPoint]) -> None:
    """A checkpoint's sweep: printed, as CSV, drawn, and in the W&B run that made it. measured: by the result's name."""
    folder = Path(config.out) if config.out else beside(path) / "evaluations"
    points = sweep_table.averaged(list(measured.values()))
    name = f"sweep_{title(path)}_{digest(sorted(measured))}"
    sweep_table.write_csv(folder / f"{name}.csv", points)
    sweep_table.draw(folder / f"{name}.png", points)
    print(f"\n{title(path)}\n\n{sweep_table.text(points)}")
    print(f"table in {folder / name}.csv, plot in {folder / name}.png", flush=True)
    step = step_of(path)
    logger = None if step is None else reopened(beside(path))
    if logger is not None:
        values = ((each, metric, found.value) for each in points for metric, found in each.estimates.items())
        logger.log_metrics({f"sweep/{each.sampler}_{each.steps}/{m}": value for each, m, value in values}, step=step)
        logger.experiment.finish()


@rank_zero_only
def save_statistics(path: Path, evaluator: Evaluator, reference: Reference) -> None:
    moments = {layer: known.moments for layer, known in evaluator.real_sets().items() if known.moments is not None}
    extractor = {"extractor": evaluator.extractor.name, "extractor_hash": evaluator.extractor.weights_hash}
    write_statistics(path, moments, {**reference.identity, **extractor})
    print(f"mean and covariance of the reference in {path}")


@rank_zero_only
def log_to_run(run: Path, result: Result) -> None:
    """The values beside the training's own, in the W&B run that made the checkpoint, if there was one.

    A folder of weights is of no run, and does not say at which step it was made.
    """
    step = result.subject.get("step")
    logger = None if step is None else reopened(run)
    if logger is not None:
        errors = {f"eval/{name}_error": error for name, error in result.errors.items()}
        logger.log_metrics({f"eval/{name}": value for name, value in result.metrics.items()} | errors, step=step)
        logger.experiment.config.update({f"protocol/{result_name(result)}": asdict(result.protocol)})
        logger.experiment.finish()
