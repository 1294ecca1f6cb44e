"""How good images are: a trained model's or any others, measured against real ones, and stored with the protocol."""

import glob
from contextlib import nullcontext
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.checkpoint.reading import hold, holding, read_checkpoint
from ddpm.config import analytic, build, load, wiring
from ddpm.evaluation import evaluators, measure
from ddpm.evaluation.measure import ModelMeasure, ModelRun
from ddpm.evaluation.reference import Images, Reference
from ddpm.evaluation.results import compare, compare_variants, draw_nearest, log_to_run, save_statistics, show, store
from ddpm.evaluation.scoring import Scoring
from ddpm.evaluation.subjects import Subject, step_of, subjects
from ddpm.evaluation.sweep_table import SweepPoint
from ddpm.evaluation.sweeps.base import Sweep, Variant, chosen_sweep
from ddpm.generation.identity import (
    beside,
    explained_if_full,
    for_result,
    identity,
    is_of_a_run,
    said,
    say_what_is_there,
)
from ddpm.generation.image_writer import ImageWriter
from ddpm.generation.module import GenerationModule
from ddpm.generation.progress import GenerationClock, GenerationProgress
from ddpm.generation.record import Timing
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.protocol import Environment, EvaluationProtocol, Result, device_name, result_name
from ddpm.runs.console import quiet


@holding()
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
    parts = wiring.instantiate(config.metric, "metric") if config.get("metric") else {}
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
    given += ["class"] if config["class"] is not None else []
    if given:
        raise ValueError(f"{given[0]} has no effect without a metric of images, as metric=fid; leave it out")


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
    if Path(config.ckpt).exists() or not glob.has_magic(str(config.ckpt)):
        return [load.checkpoint_path(config.ckpt)]
    found = {Path(path).resolve(): Path(path) for path in sorted(glob.glob(str(config.ckpt)), reverse=True)}
    if not found:
        check.fail("ckpt", config.ckpt, "a pattern that fits at least one file")
    for path in found.values():
        hold(path)
    return sorted(found.values())


# Images


def measure_images(config: DictConfig, paths: list[Path], trainer: Trainer) -> None:
    changes = load.changes(config)
    sweep = chosen_sweep(config)
    variants = sweep.variants(config, changes) if sweep else [Variant(changes)]
    evaluator = evaluators.evaluator(config, data_name(config, paths)).to("cpu")  # missing weights show now
    say_what_is_left_out(evaluator)
    if config.save_statistics and not any(score.moments for score in evaluator.scores):
        raise ValueError("save_statistics needs a metric of mean and covariance, as metric=fid")
    for path in paths if sweep else ():
        sweep.refuse(path, variants, changes)
    results: dict[str, Result] = {}
    swept: dict[str, dict[str, SweepPoint]] = {}  # by checkpoint and result
    shown: str | None = None  # the reference that the evaluator knows
    for subject, reference in subjects(config, paths, variants, trainer):
        if shown != reference.identity["data_hash"]:
            evaluator, shown = evaluator.renewed(), reference.identity["data_hash"]
        evaluator.reset_fake()
        result, timing = measured(config, subject, reference, evaluator, trainer)
        results[subject.name] = result
        if sweep:
            swept.setdefault(result.subject["ckpt"], {})[result_name(result)] = point(sweep, subject, result, timing)
    if config.save_statistics:
        save_statistics(Path(config.save_statistics), evaluator, reference)
    for path in paths if sweep else ():
        compare_variants(config, path, swept[str(path)], sweep.presentation)
    if len(results) > 1 and not sweep:
        compare(config, paths, results)


def data_name(config: DictConfig, paths: list[Path]) -> str:
    """The data set whose usual features are used."""
    if "name" in config.get("data", {}):
        return str(config.data.name)
    if paths and is_of_a_run(paths[0]):
        return str(read_checkpoint(paths[0])["config"]["data"].get("name"))
    return ""


@rank_zero_only
def say_what_is_left_out(evaluator: Evaluator) -> None:
    for score in evaluator.left_out:
        print(f"left out: {score.describe()}, since features={evaluator.extractor.name} have no layer {score.layer!r}")


OF_A_SUBJECT = (Scoring, ImageWriter, GenerationProgress, GenerationClock)


def measured(
    config: DictConfig, subject: Subject, reference: Reference, evaluator: Evaluator, trainer: Trainer
) -> tuple[Result, Timing | None]:
    """Generates what is not there, measures all, and stores the values. The timing is None where nothing is known."""
    num = subject.samples.num_samples
    real = reference.images.labels[reference.images.indices] if isinstance(reference, Images) else None
    evaluator.names(real, subject.samples.labels_of(torch.arange(num)))  # what cannot be measured shows before the work
    scoring = Scoring(evaluator, reference, subject.samples, subject.stored)
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, OF_A_SUBJECT)]
    there = subject.samples.there()
    num_found = 0 if there is None else int(there.sum())
    record = subject.writer.record if subject.writer else None
    clock = GenerationClock(device_name(trainer.strategy.root_device), record)
    if not subject.writer.is_finished() if subject.writer else num_found < num:
        trainer.callbacks.append(clock)
        if subject.writer:
            say_what_is_there(num_found, subject.writer.store, subject.writer.record)
            trainer.callbacks.append(subject.writer)
        trainer.callbacks.append(GenerationProgress(num, num_found))
    elif subject.writer:
        rank_zero_only(subject.writer.store.adopt)()
    trainer.callbacks.append(scoring)
    with explained_if_full(subject.writer.store) if subject.writer else nullcontext():
        trainer.predict(GenerationModule(subject.model), subject.samples, return_predictions=False)
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
    if not subject.variant:
        log_to_run(subject.folder.parent, result)
    return result, record.timing() if record else clock.timing


def point(sweep: Sweep, subject: Subject, result: Result, timing: Timing | None) -> SweepPoint:
    sampler = subject.model.sampler
    evaluations = sampler.evaluations(len(sampler.times(sampler.process.T)) - 1)
    cost = (timing.seconds, timing.device) if timing else ()
    value = sweep.value(subject.variant, subject.model)
    settings = "; ".join(f"{k}: {v}" for k, v in result.subject.items() if k not in ("ckpt", "run", "seed"))
    return SweepPoint(subject.variant.name, value, evaluations, result.estimates, *cost, settings=settings)


def environment(trainer: Trainer) -> Environment:
    return Environment(device_name(trainer.strategy.root_device), str(trainer.precision))


# Models


def measure_model(config: DictConfig, measures: list[ModelMeasure], path: Path | None, trainer: Trainer) -> None:
    """What a model is measured by besides its images; without a path the measures make their own of `config`."""
    if not measures:
        return
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, OF_A_SUBJECT)]
    if path is None:
        folder = Path(config.out or config.run_dir)
        run = ModelRun(None, config, None, trainer, folder)
        parts = OmegaConf.to_container(config, resolve=True)
        about = {"run": folder.name, **{g: said(parts[g]) for g in ("model", "schedule") if parts.get(g)}}
    else:
        folder = Path(config.out) if config.out else beside(path) / "evaluations"
        module, stored = load.from_checkpoint(path, load.changes(config))
        module.use_for_prediction(config.weights, config.seed)
        analytic.prepare(module, stored, path, trainer)
        run = ModelRun(module, stored, path, trainer, folder)
        about = {
            "ckpt": str(path), "run": beside(path).name, "step": step_of(path),
            **for_result(identity(stored, module, trainer)),
        }  # fmt: skip
    for part in measures:
        measured, protocol = measure.measured_by(part, run)
        result = Result.of(dict(measured.estimates), protocol=protocol, subject=about, environment=environment(trainer))
        file = folder / f"{result_name(result)}.json"
        store(file, type(part).__name__, result)
        show(file, measured)
        if path is not None:
            log_to_run(beside(path), result)
