"""Kills short runs at random moments, with SIGKILL and SIGTERM, and resumes them until they end. Counts what is lost.

python tests/chaos.py N [SEED]: N kills over the variants below; prints kills, resumes, lost steps and differing values.
Runs are forked from this process, which has loaded everything, so that starting one takes a second instead of ten.
"""

import contextlib
import faulthandler
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from small_runs import ROOT, SMALL

from ddpm.commands import train
from ddpm.commands.verify_resume import compare_runs, logged_numbers
from ddpm.training.callbacks.checkpoints import files
from ddpm.training.callbacks.interruption import Interrupted

STEPS = 12
COMMON = (
    *(f"trainer.max_steps={STEPS}", "checkpoint_every_n_steps=2", "trainer.log_every_n_steps=3", "logger=csv"),
    *("data.num_train=64", "data.num_val=32", "model.dropout=0.1", "sample_every_n_steps=4", "keep.last=3"),
    *("model.base_channels=4", "model.num_groups=2", "resume.path=auto"),
)
VARIANTS = {
    "plain": (),
    "2 workers": ("data.memory_limit_mb=0", "data.num_workers=2"),
    "accumulation 2": ("trainer.accumulate_grad_batches=2", "ema.decay=[0.9,0.99]", "ema.start_step=5"),
    "validation inside epochs": ("trainer.val_check_interval=3", "keep.best=val/loss"),
    "2 processes": ("trainer.devices=2", "trainer.strategy=ddp"),
}
SECONDS_TO_END = 120


def configuration(folder, variant):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides=[f"run_dir={folder}", *SMALL, *COMMON, *VARIANTS[variant]])


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start(folder, variant):
    """The process ids of the ranks."""
    world = 2 if variant == "2 processes" else 1
    port = free_port()
    return [forked(folder, variant, rank, world, port) for rank in range(world)]


def forked(folder, variant, rank, world, port):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = os.open(folder.with_suffix(f".{rank}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.register(signal.SIGUSR2)
        if world > 1:  # as torchrun starts it
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "GROUP_RANK": "0"}
            os.environ |= {"LOCAL_WORLD_SIZE": str(world), "TORCHELASTIC_RUN_ID": "chaos"}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        train.run_train(configuration(folder, variant))
        code = 0
    except Interrupted as interrupted:
        code = interrupted.code
    except ConnectionError as error:
        print(error)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(pids, deadline):
    """The exit codes, negative for signals; a process that is still there at the deadline is an error.

    As torchrun does, a rank whose peer has ended badly gets SIGTERM; here only if it has not ended by itself soon.
    """
    codes = {}
    while len(codes) < len(pids):
        for pid in set(pids) - codes.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
                if codes[pid] != 0:
                    deadline = min(deadline, time.monotonic() + SECONDS_TO_END)
                    grace = time.monotonic() + 5
        if any(codes.values()) and len(codes) < len(pids) and time.monotonic() > grace:
            send(set(pids) - codes.keys(), signal.SIGTERM)
            grace = deadline
        if time.monotonic() > deadline:
            send(set(pids) - codes.keys(), signal.SIGUSR2)  # it writes into its log where it is
            time.sleep(1)
            send(set(pids) - codes.keys(), signal.SIGKILL)
            raise AssertionError(f"a process was left behind; exit codes of the others: {list(codes.values())}")
        time.sleep(0.005)
    return [codes[pid] for pid in pids]


def send(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def last_step(folder):
    found = files.listed(folder / "checkpoints")
    return files.step_of(found[0]) if found else 0


def whole_run(folder, variant):
    """A run without a break, and the seconds it took."""
    begin = time.monotonic()
    codes = ended(start(folder, variant), begin + 600)
    assert set(codes) == {0}, folder.with_suffix(".0.log").read_text()
    return time.monotonic() - begin


def broken_run(folder, variant, seconds, kills, rng, told):
    """A run that is killed up to `kills` times, each time at a random moment, and then ends."""
    while True:
        pids = start(folder, variant)
        deadline = time.monotonic() + SECONDS_TO_END
        if told["kills"] < kills:
            time.sleep(rng.uniform(0, seconds))
            number = rng.choice((signal.SIGKILL, signal.SIGTERM))
            send(pids if rng.random() < 0.5 else [rng.choice(pids)], number)
            deadline = time.monotonic() + SECONDS_TO_END
        codes = ended(pids, deadline)
        assert 99 not in codes, "\n".join(path.read_text() for path in folder.parent.glob(f"{folder.name}.*.log"))
        if set(codes) == {0}:
            return
        told["kills"] += 1
        told[f"exit {min(codes)}"] += 1
        told["resumes"] += last_step(folder) > 0


def steps_of_losses(folder):
    return {step for step, name in logged_numbers(folder / "metrics.csv") if name == "train/loss"}


def chaos(kills, seed, place, variants=tuple(VARIANTS)):
    """Counts of kills, resumes, runs, lost steps and differing values over `kills` kills."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    told = Counter(kills=0, resumes=0, runs=0, lost_steps=0, differing=0)
    each = -(-kills // len(variants))
    for number, variant in enumerate(variants):
        reference = place / f"reference_{number}"
        seconds = whole_run(reference, variant)
        goal = min(kills, each * (number + 1))
        while told["kills"] < goal:
            run = place / f"run_{told['runs']}"
            broken_run(run, variant, seconds, min(goal, told["kills"] + 8), rng, told)
            told["runs"] += 1
            told["lost_steps"] += len(steps_of_losses(reference) - steps_of_losses(run)) + STEPS - last_step(run)
            different = compare_runs(reference, run)
            told["differing"] += sum(len(names) for names in different.values())
            if any(different.values()):
                print(variant, run, {part: sorted(names)[:3] for part, names in different.items() if names})
        print(f"{variant}: {dict(told)}", flush=True)
    return told


if __name__ == "__main__":
    os.environ["WANDB_MODE"] = "offline"
    number, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    place = Path(tempfile.mkdtemp(prefix="chaos_"))
    told = chaos(number, seed, place, sys.argv[3:] or tuple(VARIANTS))
    print(dict(told))
    if told["lost_steps"] or told["differing"]:
        sys.exit(f"something was lost; the runs are in {place}")
    shutil.rmtree(place)
