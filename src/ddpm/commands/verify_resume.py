"""Test for a configuration that a killed and resumed run is bitwise equal: ddpm verify-resume [OVERRIDES of train.py]

Trains a few steps without interruption. Then trains again, kills the run with SIGKILL after its first checkpoint and
resumes it. Compares weights, optimizer state, logged values and pictures of both runs bit by bit.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.base.program import PROGRAM
from ddpm.base.tables import read_steps
from ddpm.checkpoint.folder import list_checkpoints
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.checkpoint.trust import take_trust
from ddpm.runs.interruption import CHILDREN, heed_signals

SHORT = (
    *("trainer.max_steps=6", "checkpoint_every_n_steps=2", "trainer.log_every_n_steps=1", "logger=csv"),
    *("sample_every_n_steps=3", "sampler.steps=2", "callbacks.samples.num_samples=4", "resume=auto"),
    *("callbacks.denoising.num_samples=2", "optimizer.warmup_steps=2"),
)
TRAIN = PROGRAM / "train.py"


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of nested dicts and lists, with dotted names."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, dict | list):
        for key, below in items:
            yield from leaves(below, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


def compare_runs(one: Path, other: Path) -> dict[str, list[str]]:
    """Names of weights, optimizer state, loader position, logged values and pictures that differ between two runs.

    Speeds are not compared.
    """
    first, second = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (one, other))
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "ImageDataModule", "sums")
    found = {part: unequal(dict(leaves(first[part])), dict(leaves(second[part]))) for part in parts}
    found["metrics.csv"] = unequal(*(logged_numbers(folder / "metrics.csv") for folder in (one, other)))
    found["pictures"] = unequal(*(picture_files(folder) for folder in (one, other)))
    return found


def unequal(one: dict[Any, Any], other: dict[Any, Any]) -> list[str]:
    return [str(key) for key in one.keys() | other.keys() if not equal(one.get(key), other.get(key))]


def logged_numbers(path: Path) -> dict[tuple[str, str], str]:
    """Logged values as text, by step and name."""
    rows = read_steps(path).rows
    return {(row["step"], k): v for row in rows for k, v in row.items() if v and not k.startswith("sys/")}


def picture_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def start_training(overrides: list[str], folder: Path, log: Path) -> subprocess.Popen:
    words = [sys.executable, str(TRAIN), *overrides, *SHORT, f"run_dir={folder}"]
    with open(log, "a") as file:
        CHILDREN.append(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, start_new_session=True))
    return CHILDREN[-1]


def wait_until_finished(process: subprocess.Popen, log: Path) -> None:
    if process.wait() != 0:
        print(log.read_text()[-4000:])
        sys.exit(f"the training ended with exit code {process.returncode}; its output is above")


@heed_signals()
def main() -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__)
        return
    overrides = take_trust(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="verify_resume_", ignore_cleanup_errors=True) as temporary:
        whole, killed, log = (Path(temporary) / name for name in ("whole", "killed", "log"))
        print("training 6 steps without interruption", flush=True)
        wait_until_finished(start_training(overrides, whole, log), log)
        print("training again; the run is killed (SIGKILL) after its first checkpoint", flush=True)
        process = start_training(overrides, killed, log)
        while not list_checkpoints(killed / "checkpoints") and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        steps = [path.stem for path in list_checkpoints(killed / "checkpoints")]
        print(f"killed; there are checkpoints of steps {', '.join(reversed(steps))}. Resuming it", flush=True)
        wait_until_finished(start_training(overrides, killed, log), log)
        if "continuing from" not in log.read_text():
            sys.exit("the run ended before it was killed, so nothing was resumed; make it longer, with a larger batch")
        found = compare_runs(whole, killed)
    for part, names in found.items():
        print(f"  {part:18} {'bitwise equal' if not names else f'{len(names)} differ, for example {min(names)}'}")
    if any(found.values()):
        sys.exit("the resumed run is NOT the same; on a GPU, use trainer.deterministic=true")
    print("the resumed run is the same as the uninterrupted run")


if __name__ == "__main__":
    main()
