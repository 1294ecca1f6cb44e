"""Methods compared after equal minutes of training: train what is missing, measure what is missing, tabulate.

A training takes as many steps as fit into the minutes at the speed of short trials, so its learning rate ends where it
should. This speed is kept, so that all seeds train equally long. Minutes are CPU time of all threads, which other work
on the machine affects least: with one thread, minutes of one core.

What was measured is kept in a file of the repository, so that seeds can be added on another day. It counts for the
recipe that it was measured with: a changed recipe is measured again.
"""

import argparse
import hashlib
import json
import math
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import ddpm
from ddpm.config.compose import compose

ROOT = Path(__file__).resolve().parents[1]
TRIAL_STEPS = 30, 180
"""Of two trials. The difference of their times leaves out imports and compilation."""
NUM_SAMPLES = 2000
QUIET = ("trainer=cpu", "logger=csv", "sample_every_n_steps=1000000", "checkpoint_every_n_steps=1000000")
RECIPE = (
    *("data", "model", "schedule", "noise", "process", "objective", "time_sampler", "weight", "error", "loss", "codec"),
    *("cond", "optimizer", "adversary", "adversary_optimizer", "perceptual", "ema"),
)
"""The groups that a measured value depends on."""
Words = tuple[str, ...]
Values = dict[str, list[float]]
"""By name, one for each seed."""
Kept = dict[str, dict[str, dict[str, float]]]
"""Values by method, minutes and recipe, then by seed, then by name."""


def run(*words: str) -> str:
    return subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True, cwd=ROOT).stdout


@dataclass(frozen=True)
class Study:
    """folder: of the runs and `speeds.json`. file: of the values. models: by name, the words of train.py. methods: by
    name, a model and the words of its sampling. first_stages: the names of a model of latents and of its first stage.
    """

    folder: Path
    file: Path
    models: Mapping[str, Words]
    methods: Mapping[str, tuple[str, Words]]
    first_stages: Mapping[str, str]

    def num_steps(self, model: str, minutes: float, words: Words) -> int:
        """That fit into the minutes, from the difference of two short trials."""
        kept = self.folder / "speeds.json"
        speeds = json.loads(kept.read_text()) if kept.exists() else {}
        if model not in speeds:
            times = [cpu_seconds(words, steps, self.folder / "trials" / f"{model}_{steps}") for steps in TRIAL_STEPS]
            speeds[model] = (TRIAL_STEPS[1] - TRIAL_STEPS[0]) / (times[1] - times[0])
            kept.write_text(json.dumps(speeds, indent=2))
        return max(1, round(60 * minutes * speeds[model]))

    def train(self, model: str, seed: int, minutes: float) -> Path:
        """The checkpoint. A training that was cut off is continued. A first stage is trained once, with seed 0;
        its minutes are not those of its models."""
        checkpoint, words = self.checkpoint(model, seed, minutes), self.models[model]
        if not checkpoint.exists():
            if model in self.first_stages:
                words = (*words, f"codec.first_stage={self.train(self.first_stages[model], 0, minutes)}")
            steps = self.num_steps(model, minutes, words)
            print(f"training {model}, seed {seed}: {steps:,} steps", flush=True)
            folder = checkpoint.parents[1]
            unfinished = folder.with_name(f"{folder.name}_unfinished")
            chosen = (f"trainer.max_steps={steps}", f"seed={seed}", f"run_dir={unfinished}", "resume=auto")
            run("train.py", *words, *QUIET, *chosen)
            unfinished.rename(folder)
        return checkpoint

    def checkpoint(self, model: str, seed: int, minutes: float) -> Path:
        return self.folder / f"{model}_{minutes:g}min_seed{seed}" / "checkpoints" / "last.ckpt"

    def measured(self, seeds: int, minutes: float, only: list[str]) -> dict[str, Values]:
        """The values of all methods of the models `only`, or of all, without speeds."""
        for seed in map(str, range(seeds)):  # all of one seed first: whenever it is cut off, methods can be compared
            for method, (model, words) in self.methods.items():
                if only and model not in only:
                    continue
                if seed not in self.known().get(self.key(method, minutes), {}):
                    self.keep(method, minutes, seed, measure(self.train(model, int(seed), minutes), words))
        known = {method: self.known().get(self.key(method, minutes)) for method in self.methods}
        return {method: merged(by_seed) for method, by_seed in known.items() if by_seed}

    def timed(self, values: dict[str, Values], minutes: float) -> dict[str, Values]:
        """The values with "ms" an image, in batches of 64: the least of three rounds over all methods whose model of
        seed 0 is here, and the value that is kept for the others."""
        loaded, times = {}, {}
        for method in values:
            model, words = self.methods[method]
            checkpoint = self.checkpoint(model, 0, minutes)
            if checkpoint.exists():
                loaded[method], times[method] = ddpm.load(checkpoint, *words, device="cpu"), []
        for _ in range(3):
            for method, model in loaded.items():
                start = time.perf_counter()
                model.sample(64, batch_size=64)
                times[method].append((time.perf_counter() - start) / 64 * 1000)
        for method, found in times.items():
            self.keep(method, minutes, "0", {"ms": min(found)})
        return {method: merged(self.known()[self.key(method, minutes)]) for method in values}

    def key(self, method: str, minutes: float) -> str:
        """Name, minutes and a hash of the recipes of a method."""
        model, words = self.methods[method]
        recipes = [self.models[name] for name in (model, self.first_stages.get(model)) if name]
        composed = [OmegaConf.to_container(compose(ROOT / "conf", "train", recipe)) for recipe in recipes]
        settings = [[without_nulls(config[group]) for group in RECIPE] for config in composed] + [words]
        return f"{method}|{minutes:g}|{short_hash(settings)}"

    def known(self) -> Kept:
        return read_measured(self.file)

    def keep(self, method: str, minutes: float, seed: str, found: Mapping[str, float]) -> None:
        keep_measured(self.file, self.key(method, minutes), seed, found)
        print(method, seed, found, flush=True)


def without_nulls(value: Any) -> Any:
    """A later field that is null has no effect, so it makes no other recipe."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return value


def short_hash(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def read_measured(file: Path) -> Kept:
    return json.loads(file.read_text()) if file.exists() else {}


def keep_measured(file: Path, key: str, row: str, found: Mapping[str, float]) -> None:
    """Add to the file, which is read again, because another process may measure other models."""
    kept = read_measured(file)
    kept.setdefault(key, {}).setdefault(row, {}).update({name: round(value, 4) for name, value in found.items()})
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def arguments(about: str, minutes: float, seeds: int, models: Mapping[str, Words]) -> argparse.Namespace:
    """The command line of a study, with its defaults. only: a list of models, empty for all."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=minutes, help="of training")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--only", default="", help=f"models, of {', '.join(models)}")
    given = parser.parse_args()
    given.only = [name for name in given.only.split(",") if name]
    return given


def cpu_seconds(words: Words, steps: int, folder: Path) -> float:
    """The CPU time of a training."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("train.py", *words, *QUIET, f"trainer.max_steps={steps}", f"run_dir={folder}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(checkpoint: Path, words: Words) -> dict[str, float]:
    """FID, precision, recall and coverage of the samples against all training images."""
    settings = (f"ckpt={checkpoint}", "metric=[fid,prdc]", f"num_samples={NUM_SAMPLES}", "trainer=cpu", *words)
    said = run("evaluate.py", *settings)
    stored = json.loads(Path(re.findall(r"stored with its protocol in (\S+)", said)[-1]).read_text())
    return {name.split("_")[0]: value for name, value in stored["metrics"].items()}


def merged(by_seed: Mapping[str, Mapping[str, float]]) -> Values:
    names = {name for values in by_seed.values() for name in values}
    return {name: [values[name] for values in by_seed.values() if name in values] for name in names}


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
            "seeds": len(own["fid"]),
            "FID": with_error(own["fid"], 2),
            **{name: with_error(own[name], 3) for name in ("precision", "recall", "coverage")},
            "ms an image": f"{statistics.median(own['ms']):.2f}" if own.get("ms") else "",
        }
        for method, own in values.items()
    ]


def replace_between(page: Path, start: str, end: str, text: str) -> None:
    """Write `text` to a page in place of what stands between the lines `start` and `end`."""
    before, _, rest = page.read_text().partition(start)
    page.write_text(f"{before}{start}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


def replace_below(page: Path, start: str, text: str) -> None:
    """Write `text` to a page in place of all that follows the line `start`."""
    page.write_text(f"{page.read_text().partition(start)[0]}{start}\n\n{text}\n")
