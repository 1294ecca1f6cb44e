"""A signal ends a command at once with what it has stored, says how to go on, and the exit code is 128 + its number.

Files are written whole or row by row, so an exception between any two steps of Python harms none. A training acts at
the end of a step instead (`ddpm.training.callbacks.interruption`).
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ddpm import launch

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PATIENCE = 60  # seconds after which a process that cannot unwind, as it waits for a GPU, is ended


class Interrupted(SystemExit):
    """A command that was told to end. kept: what is kept and how to go on; empty where that has been said."""

    def __init__(self, number: int, kept: str = "type the same command again; what is stored is not made again"):
        super().__init__(128 + number)
        self.number, self.kept = number, kept
        STARTED.take()


@dataclass(frozen=True)
class End:
    """The handler of all signals. process, parent: their numbers when it was installed."""

    process: int
    parent: int

    def __call__(self, number: int, frame: Any) -> None:
        if os.getpid() != self.process:  # a forked worker; whoever it works for ends it, by SIGTERM if at all
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # it is ending
        last = threading.Timer(PATIENCE, os._exit, [128 + number])
        last.daemon = True
        last.start()
        if launch.by_lightning() and os.getppid() == self.parent:
            os.kill(self.parent, number)
        raise Interrupted(number)


def ignored_by_nohup(number: int) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def install() -> dict[int, Any]:
    """Returns the handlers before. One that a launcher has put there stays, as submitit's."""
    usual = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
    numbers = [n for n in SIGNALS if signal.getsignal(n) in usual and not ignored_by_nohup(n)]
    return {number: signal.signal(number, End(os.getpid(), os.getppid())) for number in numbers}


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """For the whole of a command."""
    before = install()
    try:
        yield
    except Interrupted as interrupted:
        if interrupted.kept and launch.is_first():
            with contextlib.suppress(OSError):  # the terminal may be gone
                print(f"{signal.Signals(interrupted.number).name}: {interrupted.kept}", flush=True)
        raise
    finally:
        STARTED.close()
        if not isinstance(sys.exception(), Interrupted):
            for number, handler in before.items():
                signal.signal(number, handler)


# Processes that this one started


@dataclass
class Started:
    launchers: list[Any] = field(default_factory=list)
    processes: list[subprocess.Popen] = field(default_factory=list)

    def take(self) -> None:
        """From Lightning's watch, which kills this process when one of them ends in any other way than well."""
        for launcher in self.launchers:
            if all(isinstance(process, subprocess.Popen) for process in launcher.procs):
                self.processes += launcher.procs
                launcher.procs.clear()

    def close(self) -> None:
        """Ends them by the signal that ends this one, if one does, or waits until they have said what went wrong."""
        error = sys.exception()
        number = error.number if isinstance(error, Interrupted) else 0
        self.take()
        spawned = [each for each in multiprocessing.active_children() if not each.daemon]
        for pid in [*(each.pid for each in self.processes if each.poll() is None), *(each.pid for each in spawned)]:
            if number and pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        for process in self.processes:
            try:
                process.wait(5 if number else 30)
            except subprocess.TimeoutExpired:  # it waits for this one
                process.kill()
                process.wait()
        for each in spawned if number else ():
            each.join()
        self.processes.clear()


STARTED = Started()


def take_over(trainer: Any) -> None:
    """Signals and processes of Lightning's trainer. Its own handler of SIGTERM swallows it, and sends to other ranks
    while they may be doing so themselves."""
    trainer._signal_connector.register_signal_handlers = install_if_spawned
    if hasattr(trainer.strategy.launcher, "procs"):
        STARTED.launchers.append(trainer.strategy.launcher)


def install_if_spawned() -> None:
    """A process of strategy=ddp_spawn runs no command of its own."""
    if multiprocessing.parent_process() is not None:
        install()
