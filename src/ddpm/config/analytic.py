"""Estimate the variance of variance=analytic from a trained model, once, and store it beside the checkpoint."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from ddpm.base.atomic import write_atomically
from ddpm.base.progress import ProgressDisplay
from ddpm.base.rng import Rng
from ddpm.base.untrusted import json_file
from ddpm.base.weights_hash import weights_hash
from ddpm.checkpoint.stored_config import FITTED
from ddpm.checkpoint.upgrade import upgrade
from ddpm.config import build
from ddpm.data.loader import assemble
from ddpm.data.pixels import ImageData
from ddpm.diffusion.variance import Analytic
from ddpm.generation.identity import image_settings, run_folder_of, stem
from ddpm.metrics.protocol import short_digest
from ddpm.model.diffusion_model import DiffusionModel

BATCH = 64


def prepare(model: DiffusionModel, stored: DictConfig, path: Path, trainer: Trainer) -> None:
    """Set the variance of the model's sampler if it is analytic. Must be called on all ranks."""
    variance = getattr(model.sampler, "variance", None)
    if not isinstance(variance, Analytic) or variance.errors:
        return
    data = build.data(stored, model.condition)
    rank_zero_only(data.prepare_data)()
    num = min(variance.num_images, len(data.split("train")))
    images = data.split("train", num)
    about = {
        "weights": weights_hash(model.weights(model.predict_weights)),
        "model": {
            **image_settings(stored, model.config[FITTED]),
            "guides": [weights_hash(guide) for guide in model.guides],
        },
        "precision": str(trainer.precision),
        "data": data.content_hash("train", num),
        "num_times": variance.num_times,
    }
    name = f"{stem(path)}_{model.predict_weights}"
    file = run_folder_of(path) / "analytic" / f"{name}_{short_digest(about)}.json"
    found = read_estimate(file) or earlier_estimate(file.parent.glob(f"{name}_*.json"), about)
    if found is None:
        times = variance.measured_times(model.sampler.process.T)
        errors = measure_errors(model, images, times, trainer)
        found = {"about": about, "num_images": num, "times": times, "errors": errors}
        trainer.strategy.barrier()
        write_estimate(file, json.dumps({**found, "digest": short_digest(found)}, indent=1))
    fitted = replace(variance, times=tuple(found["times"]), errors=tuple(found["errors"]))
    sampler: Any = model.sampler  # it has a variance
    model.sampler = replace(sampler, variance=fitted)


def refuse(*parts: Any) -> None:
    """Raise ValueError if one of these parts of a training needs the analytic variance of a trained model."""
    for part in parts:
        variance = getattr(part, "variance", None)
        if isinstance(variance, Analytic):
            variance.error(1)


def read_estimate(file: Path) -> dict[str, Any] | None:
    """A stored estimate; None if the file is missing or damaged."""
    try:
        found = json_file(file)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.pop("digest", None) == short_digest(found) else None


def earlier_estimate(files: Iterable[Path], about: dict[str, Any]) -> dict[str, Any] | None:
    """An estimate for the same settings under the names of an earlier version, or None."""
    estimates = filter(None, map(read_estimate, sorted(files)))
    return next((e for e in estimates if {**e["about"], "model": upgrade(e["about"]["model"])} == about), None)


@rank_zero_only
def write_estimate(file: Path, content: str) -> None:
    write_atomically(file, content.encode())
    print(f"variance=analytic: the estimate is stored in {file}", flush=True)


@torch.no_grad()
def measure_errors(model: DiffusionModel, images: ImageData, times: list[int], trainer: Trainer) -> list[float]:
    """The mean squared error of the predicted x0 at each time, over all pixels, with one draw of noise an image."""
    device = trainer.strategy.root_device
    model = model.to(device).eval()
    denoiser, process, rng = model.denoiser(model.predict_weights), model.sampler.process, Rng(0, "analytic")
    reader = images.pixels.full_reader(persistent=False)
    totals = torch.zeros(len(times), dtype=torch.float64, device=device)
    plan = list(images.indices.split(BATCH))
    with ProgressDisplay("time", len(times) * len(plan)) as display:
        for number, (ids, pixels) in enumerate(zip(plan, reader.read(plan), strict=True)):
            batch = assemble(images.pixels.fields(pixels), images.conditions(ids), ids, ids)
            batch = {name: part.to(device) for name, part in batch.items()}
            x0, cond = model.codec.encode(batch), model.condition.of(batch)
            for k, t in enumerate(times):
                x_t = process.apply(x0, process.draw(x0, rng.at(t, ids.to(device))), t)
                with trainer.precision_plugin.forward_context():
                    prediction = denoiser(x_t, t, cond)
                totals[k] += (prediction.x0.double() - x0).square().flatten(1).mean(1).sum()
                if display.is_due(number * len(times) + k):
                    display.show(number * len(times) + k, "variance=analytic: measuring the error of x0")
    return (totals / len(images)).tolist()
