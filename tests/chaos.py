"""Kills short commands at random moments, with SIGKILL and every signal, and repeats them until they end.

Counts what is lost.

python tests/chaos.py N [SEED]: N kills over the variants below; prints kills, resumes, lost steps and differing values.
Runs are forked from this process, which has loaded everything, so that starting one takes a second instead of ten.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from processes import Command, free_port
from small_runs import SMALL, command_environment

from ddpm.base.exit_codes import LOST
from ddpm.commands.verify_resume import compare_runs, logged_numbers
from ddpm.runs.interruption import SIGNALS
from ddpm.training.callbacks.checkpoints import files

STEPS = 12
COMMON = (
    *(f"trainer.max_steps={STEPS}", "checkpoint_every_n_steps=2", "trainer.log_every_n_steps=3", "logger=csv"),
    *("data.num_train=64", "data.num_val=32", "model.dropout=0.1", "sample_every_n_steps=4", "keep.last=3"),
    *("model.base_channels=4", "model.num_groups=2", "resume.path=auto"),
)
WORKERS = "2 workers"
VARIANTS = {
    "plain": (),
    WORKERS: ("data.memory_limit_mb=0", "data.num_workers=2"),
    "accumulation 2": ("trainer.accumulate_grad_batches=2", "ema.decay=[0.9,0.99]", "ema.start_step=5"),
    "validation inside epochs": ("trainer.val_check_interval=3", "keep.best=val/loss"),
    "2 processes": ("trainer.devices=2", "trainer.strategy=ddp"),
}
OTHERS = {
    "generation": ("sample.py", "num_samples=24", "batch_size=2", "format=png", "sampler.steps=20"),
    "evaluation": ("evaluate.py", "num_samples=12", "batch_size=2", "metric=is", "features=mnist", "sampler.steps=5"),
}
"""Commands that use a checkpoint: script and overrides."""
SWEEP = "sweep"
KINDS = (*VARIANTS, SWEEP, *OTHERS)
DEADLY = (signal.SIGKILL, *SIGNALS)


def start(folder, variant):
    """The ranks; those of two processes as torchrun starts them, since it, too, would have to be loaded."""
    if variant in OTHERS:
        script, *words = OTHERS[variant]
        checkpoint = folder.parent / "model/checkpoints/last.ckpt"
        words += [f"ckpt={checkpoint}", f"out={folder}", "trainer=cpu"]
        return [Command(script, *words, folder=folder.parent)]
    if variant == SWEEP:
        words = ("-m", *SMALL, *COMMON, "seed=1,2", f"hydra.sweep.dir={folder}")
        return [Command("train.py", *words, folder=folder.parent)]
    words = (*SMALL, *COMMON, *VARIANTS[variant], f"run_dir={folder}")
    if variant != "2 processes":
        return [Command("train.py", *words, folder=folder.parent)]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": folder.name}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **command_environment()}
    ranks = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    return [Command("train.py", *words, folder=folder.parent, environment=each) for each in ranks]


def ended(processes, deadline):
    """The exit codes, negative for signals; a process that is still there at the deadline is an error.

    As torchrun does, a rank whose peer has ended badly gets SIGTERM, and SIGKILL 30 s later; here only if it has not
    ended by itself soon.
    """
    grace, told = None, False
    while None in (codes := [process.poll() for process in processes]):
        if any(codes) and grace is None:
            grace = time.monotonic() + 5
        if grace and time.monotonic() > grace:
            send(processes, signal.SIGKILL if told else signal.SIGTERM)
            grace, told = time.monotonic() + 30, True  # a rank that waits for the first connection heeds no signal
        if time.monotonic() > deadline:
            send(processes, signal.SIGKILL)
            raise AssertionError(f"a process was left behind; exit codes: {codes}\n{said(processes)}")
        time.sleep(0.005)
    return codes


def said(processes):
    return "\n".join(process.communicate()[0] for process in processes)


def send(processes, number):
    for process in processes:
        process.send_signal(number)


def kill_worker(process, rng):
    """Kill one process that decodes images. False if there is none now."""
    with contextlib.suppress(OSError):
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if workers:
            os.kill(int(rng.choice(workers)), signal.SIGKILL)
            return True
    return False


def last_step(folder):
    found = files.list_checkpoints(folder / "checkpoints")
    return files.step_of(found[0]) if found else 0


def whole_run(folder, variant):
    """A run without a break, and the seconds it took."""
    begin = time.monotonic()
    processes = start(folder, variant)
    assert set(ended(processes, begin + 600)) == {0}, said(processes)
    return time.monotonic() - begin


def broken_run(folder, variant, seconds, kills, rng, told):
    """A run that is killed up to `kills` times, each time at a random moment, and then ends."""
    patience = max(600, 20 * seconds)  # other programs may run on the machine
    while True:
        processes, expected = start(folder, variant), None
        deadline = time.monotonic() + patience
        if told["kills"] < kills:
            time.sleep(rng.uniform(0, seconds))
            if variant == WORKERS and rng.random() < 0.5 and kill_worker(processes[0], rng):
                expected = {0, LOST}
            else:
                send(processes if rng.random() < 0.5 else [rng.choice(processes)], rng.choice(DEADLY))
            deadline = time.monotonic() + patience
        codes = ended(processes, deadline)
        text = said(processes)
        assert text.count("Traceback") == text.count("Exception ignored in"), text  # Python drops those of fork hooks
        assert expected is None or set(codes) <= expected, (codes, text)
        if set(codes) == {0}:
            return
        told["kills"] += 1
        told[f"exit {min(codes)}"] += 1
        told["resumes"] += any(last_step(run) for run in trainings(folder, variant)) or made(folder) > 0


def steps_of_losses(folder):
    return {step for step, name in logged_numbers(folder / "metrics.csv") if name == "train/loss"}


def trainings(folder, variant):
    return [] if variant in OTHERS else [folder / "0", folder / "1"] if variant == SWEEP else [folder]


def made(folder):
    return len([*folder.glob("images/*.png")])


def outputs(folder):
    """The bytes of the images and the metrics of the results."""
    found = {path.name: path.read_bytes() for path in folder.glob("images/*.png")}
    results = {
        path.name: json.loads(path.read_text())["metrics"] for path in folder.glob("[!.]*.json") if made(folder) == 0
    }
    return found | results


def compare(reference, run, variant, told):
    """Add lost steps and differing values."""
    for one, other in zip(trainings(reference, variant), trainings(run, variant), strict=True):
        told["lost_steps"] += len(steps_of_losses(one) - steps_of_losses(other)) + STEPS - last_step(other)
        different = compare_runs(one, other)
        told["differing"] += sum(len(names) for names in different.values())
        if any(different.values()):
            print(variant, run, {part: sorted(names)[:3] for part, names in different.items() if names})
    if variant in OTHERS:
        one, other = outputs(reference), outputs(run)
        assert one, [*reference.rglob("*")]
        told["differing"] += sum(one.get(name) != other.get(name) for name in one.keys() | other.keys())


def chaos(kills, seed, place, variants=KINDS):
    """Counts of kills, resumes, runs, lost steps and differing values over `kills` kills."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    told = Counter(kills=0, resumes=0, runs=0, lost_steps=0, differing=0)
    each = -(-kills // len(variants))
    if any(variant in OTHERS for variant in variants):
        whole_run(place / "model", "plain")
    for number, variant in enumerate(variants):
        reference = place / f"reference_{number}"
        seconds = whole_run(reference, variant)
        goal = min(kills, each * (number + 1))
        while told["kills"] < goal:
            run = place / f"run_{told['runs']}"
            broken_run(run, variant, seconds, min(goal, told["kills"] + 8), rng, told)
            told["runs"] += 1
            compare(reference, run, variant, told)
        print(f"{variant}: {dict(told)}", flush=True)
    return told


if __name__ == "__main__":
    os.environ["WANDB_MODE"] = "offline"
    number, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    place = Path(tempfile.mkdtemp(prefix="chaos_"))
    told = chaos(number, seed, place, sys.argv[3:] or KINDS)
    print(dict(told))
    if told["lost_steps"] or told["differing"]:
        sys.exit(f"something was lost; the runs are in {place}")
    shutil.rmtree(place)
