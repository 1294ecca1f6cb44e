"""Made-up folders of runs, as train.py and evaluate.py leave them."""

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from ddpm.base.environment import Environment
from ddpm.metrics.protocol import EvaluationProtocol, Result

CONFIG = {
    "data": {"_target_": "ddpm.data.datamodule.ImageDataModule", "name": "digits", "size": 8, "batch_size": 16},
    "schedule": {"_target_": "ddpm.diffusion.schedules.betas.linear", "num_timesteps": 100, "beta_end": 0.02},
    "objective": {"_target_": "ddpm.diffusion.objective.Eps", "_partial_": True},
    "sampler": {"steps": "${schedule.num_timesteps}"},
    "trainer": {"max_steps": 40, "accelerator": "cpu", "devices": 1, "precision": "32-true"},
    "name": "${data.name}",
    "seed": 0,
}
TABLE = (
    "step,train/loss,train/lr,train/loss_t/0001-0050,train/loss_t/0051-0100,eval/fid_digits_1k,eval/fid_digits_1k_error"
)
SCORES = {"fid": "FrechetDistance(layer=pool)", "kid": "KernelDistance(num_subsets=100)"}


def config(**changes):
    """CONFIG with groups or fields of its own, as `schedule={...}` or `seed=1`."""
    return {**CONFIG, **changes}


def draw(path: Path, size=(34, 34)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def make_run(folder: Path, overrides=("objective=eps",), rows=None, **changes):
    """A run of 40 steps with a grid, a strip and a row each ten steps."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "config.yaml").write_text(yaml.safe_dump(config(**changes), sort_keys=False))
    if overrides is not None:
        (folder / ".hydra").mkdir()
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    if rows is None:
        rows = [f"{10 * k},{1 / k},0.001,{2 / k},{0.5 / k},{90 / k},{1 / k}" for k in range(1, 5)]
    (folder / "metrics.csv").write_text("\n".join([TABLE, *rows]) + "\n")
    for step in (20, 40):
        draw(folder / "samples" / "ema" / f"{step:08d}.png")
    draw(folder / "denoising" / "00000040.png", (60, 20))
    return folder


def result(metrics, errors=None, protocol=None, **subject):
    about = {"run": "a", "step": 40, "seed": 0, "weights": "ema 0.99", "sampler": "Ancestral()", "steps": 100}
    how = {"num_generated": 1000, "num_real": 1797, "extractor": "digits", "data": "digits", "split": "train"}
    how |= {"scores": SCORES, "data_hash": "cd34", "extractor_hash": "ab12", **(protocol or {})}
    environment = Environment("cpu: x86_64", "32-true", {"torch": "2"})
    return Result(metrics, errors or {}, EvaluationProtocol(**how), {**about, **subject}, environment)
