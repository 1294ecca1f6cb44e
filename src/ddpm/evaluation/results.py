"""Outputs of evaluate.py: files, the terminal, pictures, and the W&B run of the model's training."""

import os
from dataclasses import asdict
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor

from ddpm.base.image_grid import annotate, tile_images
from ddpm.base.images import to_rgb
from ddpm.base.plots import save_figure
from ddpm.base.tables import write_csv
from ddpm.evaluation import table
from ddpm.evaluation.curves import curves_over_training
from ddpm.evaluation.evaluation_callback import StoredImages
from ddpm.evaluation.model_metric import Measurement
from ddpm.evaluation.reference import ImageReference, Reference
from ddpm.evaluation.sweeps.base import Sweep
from ddpm.evaluation.sweeps.points import SweepPoint, average_points
from ddpm.evaluation.targets import EvaluationTarget, checkpoint_step
from ddpm.generation.identity import run_folder_of, stem
from ddpm.generation.stores.base import save_png
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.memorization import Memorization
from ddpm.metrics.neighbours import k_nearest
from ddpm.metrics.protocol import Result, result_name, short_digest, write_result
from ddpm.metrics.score import FeatureSet
from ddpm.metrics.statistics import write_statistics
from ddpm.training.wandb_run import finished_runs, reopen_run

NUM_SHOWN = 24
NUM_NEAREST = 3
"""Numbers of generated images in the picture of nearest neighbours, and of real images beside each."""


@rank_zero_only
def store_result(path: Path, name: str, result: Result) -> None:
    print(name)
    for metric, estimate in result.estimates.items():
        print(f"  {metric}  {table.format_estimate(estimate)}", flush=True)
    write_result(path, result)
    print(f"  stored with its protocol in {path}", flush=True)


@rank_zero_only
def show_measurement(result: Path, measured: Measurement) -> None:
    """Write the pictures and tables of a model metric, and print its lines."""
    for name, picture in measured.pictures.items():
        path = result.with_name(f"{result.stem}_{name}.png")
        save_figure(picture, path) if isinstance(picture, Figure) else save_png(path, picture.numpy())
        print(f"  {name} drawn in {path}")
    for name, rows in measured.tables.items():
        path = result.with_name(f"{result.stem}_{name}.csv")
        write_csv(path, rows)
        print(f"  {name} in {path}")
    for line in measured.lines:
        print(f"  {line}")


@rank_zero_only
def draw_nearest(result: Path, target: EvaluationTarget, reference: Reference, evaluator: Evaluator) -> None:
    for score in evaluator.scores:
        if not isinstance(score, Memorization):
            continue
        if target.stored is None or not isinstance(reference, ImageReference):
            print("  no picture of the nearest images: it needs keep_images=true and a reference of images")
            return
        found = most_alike(evaluator.real_sets()[score.layer], evaluator.generated[score.layer])
        strip = draw_neighbours(*found, target.stored, reference.images.pixels.reader(False))
        path = result.with_name(f"{result.stem}_nearest_{score.layer}.png")
        save_png(path, strip.numpy())
        print(f"  generated images beside the three nearest real ones in {path}")


def most_alike(real: FeatureSet, generated: FeatureSet) -> tuple[Tensor, Tensor]:
    """Numbers `[n]` of generated images, smallest ratio of nearest to second distance first; `[n, 3]` of real ones."""
    k = min(NUM_NEAREST, real.num_images)
    distances, index = k_nearest(generated.rows, real.rows, k)
    suspects = (distances[:, 0] / distances[:, 1].clamp(min=1e-12)).argsort()[:NUM_SHOWN]
    return generated.ids[suspects].cpu(), real.ids[index[suspects]].cpu()


def draw_neighbours(numbers: Tensor, neighbours: Tensor, generated: StoredImages, real: StoredImages) -> Tensor:
    """uint8 `[H, W, 3]`: each row shows two generated images, each followed by the nearest real ones."""
    images = to_rgb(next(generated.read([numbers])))
    theirs = to_rgb(next(real.read([neighbours.flatten()])))
    rows = torch.cat([images[:, None], theirs.reshape(*neighbours.shape, *theirs.shape[1:])], 1)
    gap = torch.full_like(rows[:, :1], 128)
    num_columns = 2 * rows.shape[1] + 2
    whole = tile_images(torch.cat([rows, gap], 1).flatten(0, 1), num_columns)
    columns = ["generated", *(f"real {number}" for number in range(1, rows.shape[1]))]
    without_last_gap = whole[:, : -(whole.shape[1] // num_columns)]
    title = "generated images, each followed by the nearest real ones"
    return annotate(without_last_gap, title, columns=[*columns, "", *columns])


@rank_zero_only
def compare_targets(config: DictConfig, paths: list[Path], results: dict[str, Result], runs: dict[str, str]) -> None:
    """Write and print one table of all results; draw curves if there are several training steps. runs: by result."""
    common = Path(os.path.commonpath([run_folder_of(path) for path in paths]))
    folder = Path(config.out) if config.out else common / "evaluations"
    name = f"table_{short_digest([asdict(result) for result in results.values()])}"
    write_csv(folder / f"{name}.csv", table.result_rows(results))
    print(f"\n{table.text_table(results)}")
    if config.num_repeats > 1:
        print(f"\n{table.spread(results)}")
    print(f"table in {folder / name}.csv")
    if len({result.subject["step"] for result in results.values()} - {None}) > 1:
        save_figure(curves_over_training(results, runs), folder / f"{name}.png")
        print(f"curves in {folder / name}.png")


@rank_zero_only
@finished_runs()
def compare_variants(config: DictConfig, path: Path, measured: dict[str, SweepPoint], sweep: Sweep) -> None:
    """Print, write, draw and log the sweep of a checkpoint. measured: points by the name of their result."""
    folder = Path(config.out) if config.out else run_folder_of(path) / "evaluations"
    points = sweep.order_points(average_points(list(measured.values())))
    name = f"sweep_{stem(path)}_{short_digest(sorted(measured))}"
    write_csv(folder / f"{name}.csv", sweep.rows(points))
    save_figure(sweep.picture(points), folder / f"{name}.png")
    print(f"\n{stem(path)}\n\n{sweep.text(points)}")
    print(f"table in {folder / name}.csv, plot in {folder / name}.png", flush=True)
    step = checkpoint_step(path)
    logger = None if step is None else reopen_run(run_folder_of(path))
    if logger is not None:
        values = ((each, metric, found.value) for each in points for metric, found in each.estimates.items())
        logger.log_metrics({f"sweep/{each.name}_{each.value:g}/{m}": value for each, m, value in values}, step=step)


@rank_zero_only
def save_statistics(path: Path, evaluator: Evaluator, reference: Reference) -> None:
    moments = {layer: known.moments for layer, known in evaluator.real_sets().items() if known.moments is not None}
    extractor = {"extractor": evaluator.extractor.name, "extractor_hash": evaluator.extractor.weights_hash}
    write_statistics(path, moments, {**reference.identity, **extractor})
    print(f"mean and covariance of the reference in {path}")


@rank_zero_only
@finished_runs()
def log_to_run(run: Path, result: Result) -> None:
    """Log the values to the W&B run of the checkpoint's training, if there is one.

    An exported folder of weights has no run and no step, and is not logged.
    """
    step = result.subject.get("step")
    logger = None if step is None else reopen_run(run)
    if logger is not None:
        errors = {f"eval/{name}_error": error for name, error in result.errors.items()}
        logger.log_metrics({f"eval/{name}": value for name, value in result.metrics.items()} | errors, step=step)
        logger.experiment.config.update({f"protocol/{result_name(result)}": asdict(result.protocol)})
