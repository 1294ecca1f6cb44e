"""evaluate.py: measure images of a trained model or of any program, or the model itself, and store the results."""

import glob
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.base.environment import device_name, environment_of
from ddpm.base.system_errors import require_writable
from ddpm.checkpoint.reading import holding, read_checkpoint
from ddpm.commands.dry_run import require_memory_for_images
from ddpm.config import analytic, build, load, wiring
from ddpm.config.checkpoint_path import checkpoint_path, fetch_checkpoints, is_pattern
from ddpm.data.any_images import image_source, named_as
from ddpm.evaluation import evaluators
from ddpm.evaluation.evaluation_callback import EvaluationCallback
from ddpm.evaluation.model_metric import ModelMetric, ModelRun
from ddpm.evaluation.reference import ImageReference, Reference
from ddpm.evaluation.results import (
    compare_targets,
    compare_variants,
    draw_nearest,
    log_to_run,
    save_statistics,
    show_measurement,
    store_result,
)
from ddpm.evaluation.sweeps.base import Sweep, Variant, build_sweep
from ddpm.evaluation.sweeps.points import SweepPoint
from ddpm.evaluation.targets import EvaluationTarget, checkpoint_step, evaluation_targets
from ddpm.generation.identity import (
    describe_groups,
    describe_part,
    explain_kept,
    identity,
    is_of_a_run,
    report_progress,
    run_folder_of,
)
from ddpm.generation.image_writer import ImageWriter
from ddpm.generation.module import GenerationModule
from ddpm.generation.progress import GenerationClock, GenerationProgress
from ddpm.generation.record import Timing
from ddpm.interop.hub import describe_path
from ddpm.interop.recognise import NoModel, recognise
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.protocol import EvaluationProtocol, Result, result_name
from ddpm.runs import launch
from ddpm.runs.console import quiet_libraries
from ddpm.runs.lease import lock_folder


@holding()
def run_evaluate(config: DictConfig) -> None:
    quiet_libraries()
    check.positive_int("num_repeats", config.num_repeats)
    check.integer("seed", config.seed, 0, 2**63 - config.num_repeats)
    config = fetch_checkpoints(config)
    config, model_metrics = split_metrics(config)
    if not config.metric:
        refuse_what_is_for_images(config)
    paths = checkpoint_paths(config, [*model_metrics.values()])
    trainer = build.trainer(config)
    if config.metric:
        measure_images(config, paths, trainer)
    for path in paths or [None]:
        measure_model(config, model_metrics, path, trainer)


def split_metrics(config: DictConfig) -> tuple[DictConfig, dict[str, ModelMetric]]:
    """The configuration with only the metrics of images, and the metrics of the model, by name."""
    parts = wiring.instantiate(config.metric, "metric") if config.get("metric") else {}
    parts = {name: part for name, part in parts.items() if part is not None}
    if not parts:
        raise ValueError("metric must be given, for example metric=fid")
    model_metrics = {name: part for name, part in parts.items() if hasattr(part, "measure")}
    config = config.copy()
    config.metric = OmegaConf.masked_copy(config.metric, [name for name in parts if name not in model_metrics])
    return config, model_metrics


def refuse_what_is_for_images(config: DictConfig) -> None:
    given = [field for field in ("sweep", "save_statistics", "images", "reference") if config.get(field)]
    given += ["num_repeats"] if config.num_repeats > 1 else []
    given += [field for field in ("num_samples", "num_real", "class") if config[field] is not None]
    if given:
        raise ValueError(f"{given[0]} has no effect without a metric of images, for example metric=fid; leave it out")


def checkpoint_paths(config: DictConfig, model_metrics: list[ModelMetric]) -> list[Path]:
    """The checkpoints that `ckpt` names. A file that several links point to is listed once."""
    models = [type(part).__name__ for part in model_metrics if getattr(part, "needs_checkpoint", True)]
    if config.metric and (config.ckpt is None) == (config.images is None):
        raise ValueError("ckpt or images must be given, and not both: ckpt=latest, or images=FOLDER")
    if config.ckpt is None:
        if models:
            raise ValueError(f"ckpt must be given, as ckpt=latest: {models[0]} measures a trained model")
        if config.get("sweep"):
            raise ValueError("sweep has no effect without a model; leave it out, or give ckpt")
        if config.num_repeats > 1:
            raise ValueError("num_repeats has no effect on stored images; leave it out")
        return []
    if not is_pattern(str(config.ckpt)):
        return [checkpoint_path(config.ckpt)]
    found = {os.path.realpath(path): Path(path) for path in sorted(glob.glob(str(config.ckpt)), reverse=True)}
    if not found:
        check.fail("ckpt", config.ckpt, "a pattern that matches at least one file")
    needs_samples = bool(config.metric) or any(getattr(part, "needs_samples", True) for part in model_metrics)
    paths = [checkpoint_path(str(path)) for path in sorted(found.values())]
    fitting = [path for path in paths if holds_model(path, needs_samples)]
    if not fitting:
        check.fail("ckpt", config.ckpt, "a pattern that matches a model that generates images")
    return fitting


def holds_model(path: Path, needs_samples: bool) -> bool:
    """Whether a path that a pattern matches is a model, which generates images; others are named and passed over."""
    try:
        recognise(path)
        if needs_samples:
            load.refuse_without_samples(load.guide(path), path)
    except (NoModel, load.NoSamples) as error:
        rank_zero_only(print)(f"passed over: {error}")
        return False
    return True


# Images


def measure_images(config: DictConfig, paths: list[Path], trainer: Trainer) -> None:
    changes = load.changes(config)
    sweep = build_sweep(config)
    variants = sweep.variants(config, changes) if sweep else [Variant(changes)]
    if config.images is not None:
        with named_as("images", Path(config.images)):
            image_source(config.images).open()  # raises before weights are downloaded
    evaluator = evaluators.build_evaluator(config, data_name(config, paths)).to("cpu")  # raises if weights are missing
    report_left_out(evaluator)
    if config.save_statistics and not any(score.moments for score in evaluator.scores):
        raise ValueError("save_statistics needs a metric of mean and covariance, for example metric=fid")
    for path in paths if sweep else ():
        sweep.refuse(path, variants, changes)
    results: dict[str, Result] = {}
    runs: dict[str, str] = {}  # of each result, by name
    swept: dict[str, dict[str, SweepPoint]] = {}  # by checkpoint and result
    shown: str | None = None  # hash of the reference whose features the evaluator holds
    for target, reference in evaluation_targets(config, paths, variants, trainer):
        if shown != reference.identity["data_hash"]:
            evaluator, shown = evaluator.renewed(), reference.identity["data_hash"]
        evaluator.reset_fake()
        result, timing = measure_target(config, target, reference, evaluator, trainer)
        results[target.name], runs[target.name] = result, target.run
        if sweep:
            point = sweep_point(sweep, target, result, timing)
            swept.setdefault(result.subject["ckpt"], {})[result_name(result)] = point
    if config.save_statistics:
        save_statistics(Path(config.save_statistics), evaluator, reference)
    for path in paths if sweep else ():
        compare_variants(config, path, swept[describe_path(path)], sweep)
    if len(results) > 1 and not sweep:
        compare_targets(config, paths, results, runs)


def data_name(config: DictConfig, paths: list[Path]) -> str:
    """Name of the data set that decides features=usual; empty if unknown."""
    if "name" in config.get("data", {}):
        return str(config.data.name)
    if paths and is_of_a_run(paths[0]):
        return str(read_checkpoint(paths[0])["config"]["data"].get("name"))
    return ""


@rank_zero_only
def report_left_out(evaluator: Evaluator) -> None:
    for score in evaluator.left_out:
        print(f"skipped: {score.describe()}, because features={evaluator.extractor.name} has no layer {score.layer!r}")


NOT_KEPT = ("", "add keep_images=false")
"""Text before the folder of generated images in error messages, and what to do without it."""
TARGET_CALLBACKS = (EvaluationCallback, ImageWriter, GenerationProgress, GenerationClock)


def measure_target(
    config: DictConfig, target: EvaluationTarget, reference: Reference, evaluator: Evaluator, trainer: Trainer
) -> tuple[Result, Timing | None]:
    """Generate missing images, measure all images, and store the result. The timing is None if it is unknown."""
    folder = Path(config.out) if config.out else target.folder
    require_writable(folder, "out")
    num = target.samples.num_samples
    if target.model:
        require_memory_for_images(target.model, min(config.batch_size, num))
    real = reference.images.labels[reference.images.indices] if isinstance(reference, ImageReference) else None
    evaluator.names(real, target.samples.labels_of(torch.arange(num)))  # raises if they cannot be measured
    scoring = EvaluationCallback(evaluator, reference, target.samples, target.stored)
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, TARGET_CALLBACKS)]
    done_mask = target.samples.done_mask()
    num_found = 0 if done_mask is None else int(done_mask.sum())
    record = target.writer.record if target.writer else None
    clock = GenerationClock(device_name(trainer.strategy.root_device), record)
    lock: AbstractContextManager[None] = nullcontext()
    if not target.writer.is_finished() if target.writer else num_found < num:
        trainer.callbacks.append(clock)
        if target.writer:
            report_progress(num_found, target.writer.store, target.writer.record)
            trainer.callbacks.append(target.writer)
            if launch.is_first_process():
                lock = lock_folder(target.writer.store.folder, *NOT_KEPT)
        trainer.callbacks.append(GenerationProgress(num, num_found))
    elif target.writer:
        target.writer.adopt()
    trainer.callbacks.append(scoring)
    with explain_kept(target.writer.store, *NOT_KEPT) if target.writer else nullcontext(), lock:
        trainer.predict(GenerationModule(target.model), target.samples, return_predictions=False)
    protocol = EvaluationProtocol(**evaluator.provenance(), **reference.identity)
    result = Result.of(scoring.values, protocol=protocol, subject=target.about, environment=environment_of(trainer))
    path = folder / f"{result_name(result)}.json"
    store_result(path, target.name, result)
    draw_nearest(path, target, reference, evaluator)
    if not target.variant:
        log_to_run(target.folder.parent, result)
    return result, record.timing() if record else clock.timing


def sweep_point(sweep: Sweep, target: EvaluationTarget, result: Result, timing: Timing | None) -> SweepPoint:
    evaluations = target.model.sampler.evaluations()
    value = sweep.value(target.variant, target.model)
    settings = "; ".join(f"{k}: {v}" for k, v in result.subject.items() if k not in ("ckpt", "run", "seed"))
    point = SweepPoint(target.variant.name, value, evaluations, result.estimates, settings=settings)
    return replace(point, seconds=timing.seconds, device=timing.device) if timing else point


# Models


def measure_model(config: DictConfig, metrics: dict[str, ModelMetric], path: Path | None, trainer: Trainer) -> None:
    """Compute the metrics of the model itself. Without a path, the metric builds its own model from `config`."""
    if not metrics:
        return
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, TARGET_CALLBACKS)]
    if path is None:
        folder = Path(config.out or config.run_dir)
        run = ModelRun(None, config, None, trainer, folder)
        parts = OmegaConf.to_container(config, resolve=True)
        about = {"run": folder.name, **{g: describe_part(parts[g]) for g in ("model", "schedule") if parts.get(g)}}
    else:
        folder = Path(config.out) if config.out else run_folder_of(path) / "evaluations"
        model, stored = load.from_checkpoint(path, load.changes(config))
        if any(getattr(part, "needs_samples", True) for part in metrics.values()):
            load.refuse_without_samples(model, path)
        model.use_for_prediction(config.weights, config.seed)
        analytic.prepare(model, stored, path, trainer)
        run = ModelRun(model, stored, path, trainer, folder)
        about = {
            "ckpt": describe_path(path), "run": run_folder_of(path).name, "step": checkpoint_step(path),
            **describe_groups(identity(stored, model, trainer)),
        }  # fmt: skip
    require_writable(folder, "out")
    for name, part in metrics.items():
        try:
            measured = part.measure(run)
        except ValueError as error:
            if not hasattr(part, str(error).partition(" must ")[0]):
                raise
            raise wiring.name_field(error, f"metric.{name}") from error
        if not measured.estimates:
            check.fail(f"the values of {type(part).__name__}", measured.estimates, "at least one")
        protocol = EvaluationProtocol(**measured.protocol)
        result = Result.of(measured.estimates, protocol=protocol, subject=about, environment=environment_of(trainer))
        file = folder / f"{result_name(result)}.json"
        store_result(file, f"metric={name}", result)
        show_measurement(file, measured)
        if path is not None:
            log_to_run(run_folder_of(path), result)
