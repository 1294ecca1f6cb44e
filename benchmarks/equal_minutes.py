"""Methods compared after equal minutes of training: train what is missing, measure what is missing, tabulate.

A training takes as many steps as fit into the minutes at the speed of a short trial, so its learning rate ends where it
should. The trial's speed is kept, so that all seeds train equally long.
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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ddpm

ROOT = Path(__file__).resolve().parents[1]
TRIAL_STEPS = 60
NUM_SAMPLES = 2000
QUIET = ("trainer=cpu", "logger=csv", "sample_every_n_steps=1000000", "checkpoint_every_n_steps=1000000")
Words = tuple[str, ...]
Values = dict[str, list[float]]
"""By name, one for each seed."""


def run(*words: str) -> str:
    return subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True, cwd=ROOT).stdout


@dataclass(frozen=True)
class Study:
    """folder: of the runs, `speeds.json` and `values.json`. models: by name, the words of train.py, and for models of
    latents the name of the first stage. methods: by name, a model and the words of its sampling.
    """

    folder: Path
    models: Mapping[str, Words]
    methods: Mapping[str, tuple[str, Words]]
    first_stages: Mapping[str, str]

    def num_steps(self, model: str, minutes: float, words: Words) -> int:
        """That fit into the minutes, from the second half of a short trial."""
        kept = self.folder / "speeds.json"
        speeds = json.loads(kept.read_text()) if kept.exists() else {}
        if model not in speeds:
            trial = self.folder / "trials" / model
            shorter = (f"trainer.max_steps={TRIAL_STEPS}", "trainer.log_every_n_steps=10")
            run("train.py", *words, *QUIET, *shorter, f"run_dir={trial}")
            with open(trial / "metrics.csv", newline="") as file:
                found = [row["sys/steps_per_second"] for row in csv.DictReader(file)]
            rates = [float(rate) for rate in found if rate]
            speeds[model] = statistics.median(rates[len(rates) // 2 :])
            kept.write_text(json.dumps(speeds, indent=2))
        return max(1, round(60 * minutes * speeds[model]))

    def train(self, model: str, seed: int, minutes: float) -> Path:
        """The checkpoint. A first stage is trained once, with seed 0; its minutes are not those of its models."""
        run_folder, words = self.folder / f"{model}_{minutes:g}min_seed{seed}", self.models[model]
        if not (run_folder / "checkpoints" / "last.ckpt").exists():
            if model in self.first_stages:
                words = (*words, f"codec.first_stage={self.train(self.first_stages[model], 0, minutes)}")
            steps = self.num_steps(model, minutes, words)
            print(f"training {model}, seed {seed}: {steps:,} steps", flush=True)
            run("train.py", *words, *QUIET, f"trainer.max_steps={steps}", f"seed={seed}", f"run_dir={run_folder}")
        return run_folder / "checkpoints" / "last.ckpt"

    def measured(self, seeds: int, minutes: float, only: list[str]) -> dict[str, Values]:
        """The values of all methods of the models `only`, or of all, without speeds."""
        for method, (model, words) in self.methods.items():
            for seed in range(seeds if not only or model in only else 0):
                key = f"{method}|{minutes:g}"
                if len(self.known().get(key, {}).get("fid", [])) > seed:
                    continue
                checkpoint = self.train(model, seed, minutes)
                found = measure(checkpoint, words)
                values = self.known()  # read again, because another process may measure other models
                for name, value in found.items():
                    values.setdefault(key, {}).setdefault(name, []).append(value)
                (self.folder / "values.json").write_text(json.dumps(values, indent=2))
                print(method, seed, {name: round(value, 3) for name, value in found.items()}, flush=True)
        known = self.known()
        return {method: known[f"{method}|{minutes:g}"] for method in self.methods if f"{method}|{minutes:g}" in known}

    def timed(self, values: dict[str, Values], minutes: float) -> dict[str, Values]:
        """The values with "ms" an image, of seed 0 in batches of 64: the least of three rounds over all methods."""
        loaded, times = {}, {method: [] for method in values}
        for method in values:
            model, words = self.methods[method]
            loaded[method] = ddpm.load(self.train(model, 0, minutes), *words, device="cpu")
        for _ in range(3):
            for method, model in loaded.items():
                start = time.perf_counter()
                model.sample(64, batch_size=64)
                times[method].append((time.perf_counter() - start) / 64 * 1000)
        return {method: {**own, "ms": [min(times[method])]} for method, own in values.items()}

    def known(self) -> dict[str, Values]:
        path = self.folder / "values.json"
        return json.loads(path.read_text()) if path.exists() else {}


def arguments(about: str, minutes: float, seeds: int, models: Mapping[str, Words]) -> argparse.Namespace:
    """The command line of a study, with its defaults. only: a list of models, empty for all."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=minutes, help="of training")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--only", default="", help=f"models, of {', '.join(models)}")
    given = parser.parse_args()
    given.only = [name for name in given.only.split(",") if name]
    return given


def measure(checkpoint: Path, words: Words) -> dict[str, float]:
    """FID, precision, recall and coverage of the samples against all training images."""
    settings = (f"ckpt={checkpoint}", "metric=[fid,prdc]", f"num_samples={NUM_SAMPLES}", "trainer=cpu", *words)
    said = run("evaluate.py", *settings)
    stored = json.loads(Path(re.findall(r"stored with its protocol in (\S+)", said)[-1]).read_text())
    return {name.split("_")[0]: value for name, value in stored["metrics"].items()}


def with_error(values: list[float], digits: int) -> str:
    """Mean and standard error over seeds."""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


def rows(values: Mapping[str, Values]) -> list[dict[str, Any]]:
    return [
        {
            "method": method,
            "FID": with_error(own["fid"], 2),
            **{name: with_error(own[name], 3) for name in ("precision", "recall", "coverage")},
            "ms an image": f"{statistics.median(own['ms']):.2f}",
        }
        for method, own in values.items()
    ]


def replace_below(page: Path, start: str, text: str) -> None:
    """Write `text` to a page in place of all that follows the line `start`."""
    page.write_text(f"{page.read_text().partition(start)[0]}{start}\n\n{text}\n")
