"""Quality, diversity and speed of methods that had the same minutes of training, on the embedded digits.

    python -m benchmarks.trilemma [--minutes 12] [--seeds 3] [--only ddgan_4,vae]

Trains what is missing under runs/trilemma, measures what is missing, and writes the table and the picture of
docs/trilemma.md. A training takes as many steps as fit into the minutes at the speed of a short trial, so its learning
rate ends where it should; the trial's speed is kept, so that all seeds train equally long. Use an idle machine.
"""

import argparse
import csv
import json
import math
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

import ddpm
from benchmarks.run import table

ROOT = Path(__file__).resolve().parents[1]
RUNS, PAGE, PICTURE = ROOT / "runs" / "trilemma", ROOT / "docs" / "trilemma.md", ROOT / "docs" / "trilemma.png"
VALUES = RUNS / "values.json"
START = "<!-- written by make trilemma: what stands below is replaced -->"
TRIAL_STEPS = 60
NUM_SAMPLES = 2000
QUIET = ("trainer=cpu", "logger=csv", "sample_every_n_steps=1000000", "checkpoint_every_n_steps=1000000")

DDGAN = ("experiment=ddgan_mnist",)
MODELS: dict[str, tuple[str, ...]] = {
    "ddpm": ("experiment=mnist",),
    "ddpm_class": ("experiment=mnist_class",),
    "ddgan_1": (*DDGAN, "schedule.num_timesteps=1"),
    "ddgan_2": (*DDGAN, "schedule.num_timesteps=2"),
    "ddgan_4": DDGAN,
    "vae": ("experiment=vae_mnist",),
    "first_stage": ("experiment=first_stage_mnist", "callbacks.reconstructions.every_n_steps=1000000"),
    "ldm_class": ("experiment=ldm_mnist", f"codec.first_stage={RUNS / 'first_stage'}"),
}
"""What is trained, by name. The first stage is trained once, beside the minutes of the models of its latents."""

METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{f"DDPM, ancestral, {n} steps": ("ddpm", (f"sampler.steps={n}",)) for n in (4, 20, 100)},
    **{f"DDIM, {n} steps": ("ddpm", ("sampler=ddim", f"sampler.steps={n}")) for n in (4, 20, 100)},
    **{f"DPM-Solver++, {n} steps": ("ddpm", ("sampler=dpm_solver", f"sampler.steps={n}")) for n in (4, 10, 20)},
    **{
        f"guidance {scale}, DDIM, 20 steps": (
            "ddpm_class",
            ("sampler=ddim", "sampler.steps=20", "guidance=classifier_free", f"guidance.scale={scale}"),
        )
        for scale in (1, 3)
    },
    **{f"DDGAN, {n} step{'s' * (n > 1)}": (f"ddgan_{n}", ()) for n in (1, 2, 4)},
    "VAE": ("vae", ()),
    "latent diffusion, DDIM, 20 steps": ("ldm_class", ("sampler=ddim", "sampler.steps=20")),
}
"""What is measured: a model and how it is sampled."""


def run(*words: str) -> str:
    return subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True, cwd=ROOT).stdout


def num_steps(model: str, minutes: float) -> int:
    """That fit into the minutes, from the second half of a short trial."""
    kept = RUNS / "speeds.json"
    speeds = json.loads(kept.read_text()) if kept.exists() else {}
    if model not in speeds:
        folder = RUNS / "trials" / model
        words = (*MODELS[model], *QUIET, f"trainer.max_steps={TRIAL_STEPS}", "trainer.log_every_n_steps=10")
        run("train.py", *words, "callbacks.samples=null", "callbacks.denoising=null", f"run_dir={folder}")
        with open(folder / "metrics.csv", newline="") as file:
            rates = [float(row["sys/steps_per_second"]) for row in csv.DictReader(file) if row["sys/steps_per_second"]]
        speeds[model] = statistics.median(rates[len(rates) // 2 :])
        kept.write_text(json.dumps(speeds, indent=2))
    return max(1, round(60 * minutes * speeds[model]))


def train(model: str, seed: int, minutes: float) -> Path:
    folder = RUNS / f"{model}_{minutes:g}min_seed{seed}"
    if not (folder / "checkpoints" / "last.ckpt").exists():
        if model == "ldm_class" and not (RUNS / "first_stage").exists():
            train("first_stage", 0, minutes).parents[1].rename(RUNS / "first_stage")
        steps = num_steps(model, minutes)
        print(f"training {model}, seed {seed}: {steps:,} steps", flush=True)
        run("train.py", *MODELS[model], *QUIET, f"trainer.max_steps={steps}", f"seed={seed}", f"run_dir={folder}")
    return folder / "checkpoints" / "last.ckpt"


def measure(checkpoint: Path, words: tuple[str, ...]) -> dict[str, float]:
    """FID, precision, recall and coverage of the samples against all digits."""
    settings = (f"ckpt={checkpoint}", "metric=[fid,prdc]", f"num_samples={NUM_SAMPLES}", "trainer=cpu", *words)
    said = run("evaluate.py", *settings)
    stored = json.loads(Path(re.findall(r"stored with its protocol in (\S+)", said)[-1]).read_text())
    return {name.split("_")[0]: value for name, value in stored["metrics"].items()}


def milliseconds(checkpoint: Path, words: tuple[str, ...]) -> float:
    """Per image, in batches of 64, the least of three."""
    model, times = ddpm.load(checkpoint, *words), []
    for _ in range(3):
        start = time.perf_counter()
        model.sample(64, batch_size=64)
        times.append((time.perf_counter() - start) / 64 * 1000)
    return min(times)


def measured(seeds: int, minutes: float, only: list[str]) -> dict[str, dict[str, list[float]]]:
    """Values of all seeds, by method; kept in runs/trilemma/values.json."""
    for method, (model, words) in METHODS.items():
        if only and model not in only:
            continue
        for seed in range(seeds):
            if len(known_values().get(f"{method}|{minutes:g}", {}).get("fid", [])) > seed:
                continue
            checkpoint = train(model, seed, minutes)
            found = {**measure(checkpoint, words), "ms": milliseconds(checkpoint, words)}
            values = known_values()  # read again, because another process may measure other models
            for name, value in found.items():
                values.setdefault(f"{method}|{minutes:g}", {}).setdefault(name, []).append(value)
            VALUES.write_text(json.dumps(values, indent=2))
            print(method, seed, {name: round(value, 3) for name, value in found.items()}, flush=True)
    values = known_values()
    return {method: values[f"{method}|{minutes:g}"] for method in METHODS if f"{method}|{minutes:g}" in values}


def known_values() -> dict[str, dict[str, list[float]]]:
    return json.loads(VALUES.read_text()) if VALUES.exists() else {}


def with_error(values: list[float], digits: int) -> str:
    """Mean and standard error over seeds."""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


def rows(values: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    return [
        {
            "method": method,
            "FID": with_error(own["fid"], 2),
            **{name: with_error(own[name], 3) for name in ("precision", "recall", "coverage")},
            "ms an image": f"{statistics.median(own['ms']):.2f}",
        }
        for method, own in values.items()
    ]


def draw(values: dict[str, dict[str, list[float]]]) -> None:
    """Speed to the right, quality upwards, diversity as colour."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    x = [1000 / statistics.median(own["ms"]) for own in values.values()]
    y = [statistics.mean(own["fid"]) for own in values.values()]
    recall = [statistics.mean(own["recall"]) for own in values.values()]
    shown = axes.scatter(x, y, c=recall, s=90, cmap="viridis", edgecolors="black", zorder=3)
    for method, a, b in zip(values, x, y, strict=True):
        axes.annotate(method, (a, b), xytext=(6, 5), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="images a second, two CPU cores", ylabel="FID (features of digits)")
    axes.invert_yaxis()
    axes.grid(alpha=0.3, which="both")
    figure.colorbar(shown, label="recall")
    figure.savefig(PICTURE, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12.0, help="of training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help=f"models, of {', '.join(MODELS)}")
    given = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    values = measured(given.seeds, given.minutes, [name for name in given.only.split(",") if name])
    head = PAGE.read_text().partition(START)[0]
    about = f"{given.minutes:g} minutes of training each, {given.seeds} seeds, {torch.get_num_threads()} threads."
    PAGE.write_text(f"{head}{START}\n\n{about}\n\n{table(rows(values))}\n")
    draw(values)
    print(table(rows(values)))


if __name__ == "__main__":
    main()
