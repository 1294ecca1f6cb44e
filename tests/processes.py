"""Commands in processes of their own: started as a person does, or forked from this one, which has loaded everything.

A forked one saves the seconds of loading. Its script runs from the first line, with arguments, environment, folder and
session of its own. What it starts itself is a process of the usual kind, but for Lightning's second rank, forked too.
"""

import contextlib
import csv
import logging
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

import torch
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.utilities import rank_zero_only
from small_runs import ROOT, THREADS, command_environment

import ddpm.commands.evaluate
import ddpm.commands.sample
import ddpm.commands.train  # noqa: F401  loaded here, so that no child has to
from ddpm.checkpoint.folder import list_checkpoints
from ddpm.runs.interruption import SIGNALS

LONG = ("trainer.max_steps=100000", "checkpoint_every_n_steps=1", "sample_every_n_steps=100000")


def usual(script, words):
    """The words of train.py with the experiment that `small_runs.configured` adds."""
    given = script != "train.py" or any(word.startswith("experiment=") for word in words)
    return words if given or "data=digits" not in words else (*words, "experiment=mnist")


def command(folder, *words, start=(sys.executable,), script="train.py", environment=None):
    """In a session of its own, so that what it leaves behind can be found."""
    return subprocess.Popen(
        [*start, str(ROOT / script), *usual(script, words)],
        cwd=folder,
        env=environment or command_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process, seconds=120):
    """Exit code and output; after that no process of its session may be left."""
    output, _ = process.communicate(timeout=seconds)
    deadline = time.monotonic() + 10
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not members(process.pid), output
    return process.returncode, output


def members(session):
    """The processes of a session, from /proc: the sixth field after the name is the session's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def checkpoints_of(folder, process, number):
    """Waits until a run has written so many."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        runs = list((folder / "runs").glob("*/checkpoints"))
        if runs and list_checkpoints(runs[0]) and int(list_checkpoints(runs[0])[0].stem) >= number:
            return list_checkpoints(runs[0])
        time.sleep(0.05)
    raise AssertionError(process.communicate()[0])


def losses(run):
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("train/loss", "train/grad_norm", "val/loss")
    return {(row["step"], name): float(row[name]) for row in rows for name in names if row.get(name)}


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


# Forked


class Process:
    """What subprocess.Popen is to its user: a child of this process."""

    def __init__(self, pid):
        self.pid, self.returncode, self.lock = pid, None, threading.Lock()

    def poll(self):
        with self.lock:
            if self.returncode is None and (status := os.waitpid(self.pid, os.WNOHANG))[0]:
                self.returncode = os.waitstatus_to_exitcode(status[1])
        return self.returncode

    def wait(self, timeout=120):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Command(Process):
    """`Command("sample.py", "ckpt=...", folder=...)`, started. nohup: as nohup starts it. two: on two ranks."""

    def __init__(self, script, *words, folder, environment=None, nohup=False, two=False):
        self.file = tempfile.TemporaryFile("w+")  # noqa: SIM115
        torch.set_num_threads(THREADS)  # a forked process must not wait for its parent's threads
        super().__init__(os.fork())
        if self.pid == 0:
            with leaving():
                os.setsid()
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(self.file.fileno(), 1)
                os.dup2(self.file.fileno(), 2)
                if two or "trainer.devices=2" in words:
                    fork_the_second_rank()
                signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
                run([str(ROOT / script), *usual(script, words)], environment or command_environment(), folder)

    def communicate(self, timeout=120):
        """All that it printed, and None, once it has ended."""
        self.wait(timeout)
        self.file.seek(0)
        return self.file.read(), None


@contextlib.contextmanager
def leaving():
    """Ends the child that is in it, as Python ends a script."""
    code = 1
    try:
        yield
        code = 0
    except SystemExit as left:
        code = left.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(words, environment, folder):
    """What this process has of pytest and of earlier runs is put aside, and the script begins."""
    for number in {*SIGNALS} - {signal.SIGHUP}:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdin, sys.stdout, sys.stderr = (open(number, "rw"[number > 0], closefd=False) for number in range(3))  # noqa: SIM115
    for logger in (logging.getLogger(), logging.getLogger("lightning.pytorch")):
        logger.handlers = [logging.StreamHandler()]
    warnings.resetwarnings()
    GlobalHydra.instance().clear()
    os.environ.clear()
    os.environ.update(environment)
    rank_zero_only.rank = int(environment.get("LOCAL_RANK", 0))
    os.chdir(folder or ".")
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


def fork_the_second_rank():
    """It waits until Lightning starts it, so that it has nothing of what the first has done by then."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with leaving():
            os.close(writing)
            with open(reading, "rb") as pipe:
                told = pipe.read()
            if told:
                run(*pickle.loads(told))

    def start(command, env, cwd):
        with open(writing, "wb") as pipe:
            pickle.dump((list(command)[1:], env, cwd), pipe)
        return Process(pid)

    os.close(reading)
    subprocess_script.subprocess = type("Subprocess", (), {"Popen": staticmethod(start)})
