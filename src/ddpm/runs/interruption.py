"""Signal handling: a signal ends a command at once, prints how to continue, and gives exit code 128 + its number.

Files are written atomically or row by row, so an exception at any point damages none. A training acts at the end of a
step instead (`ddpm.training.callbacks.interruption`).
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from ddpm.base import exit_codes
from ddpm.runs import launch

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
USUAL = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
LAUNCHERS: list[Any] = []  # Lightning's launchers, which start the other ranks
CHILDREN: list[subprocess.Popen] = []  # processes to end with this one
ENDING = threading.Event()  # this process is about to end
GRACE = 5  # seconds in which this process may end by itself


class Interrupted(SystemExit):
    """Raised by a signal. kept: message about kept files and how to continue; empty if it was printed already."""

    def __init__(self, number: int, kept: str = "ended; all files written so far are intact and kept"):
        super().__init__(128 + number)
        self.number, self.kept = number, kept
        ENDING.set()
        take_children()


def ignored_by_nohup(number: int) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


@contextlib.contextmanager
def heed_signals() -> Iterator[None]:
    """Handle signals during a command. Handlers of a launcher (submitit, for example) are kept."""
    process, parent = os.getpid(), os.getppid()

    def end(number: int, frame: Any) -> None:
        if os.getpid() != process:  # a forked worker; its parent process ends it
            return
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # already ending
        timer = threading.Timer(60, os._exit, [128 + number])  # in case it waits for a GPU
        timer.daemon = True
        timer.start()
        if launch.by_lightning() and os.getppid() == parent:
            os.kill(parent, number)
        raise Interrupted(number)

    def again(unraisable: Any) -> None:
        error = unraisable.exc_value
        if isinstance(error, Interrupted):  # Python drops what is raised in a hook of fork, or while it frees an object
            signal.signal(error.number, end)
            threading.Timer(0.1, os.kill, [process, error.number]).start()
        else:
            hook(unraisable)

    hook, sys.unraisablehook = sys.unraisablehook, again
    numbers = [n for n in SIGNALS if signal.getsignal(n) in USUAL and not ignored_by_nohup(n)]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    except Interrupted as interrupted:
        before = dict.fromkeys(before, signal.SIG_IGN)  # ignore further signals
        if interrupted.kept and launch.is_first_process():
            with contextlib.suppress(OSError):  # the terminal may be gone
                print(f"{signal.Signals(interrupted.number).name}: {interrupted.kept}", flush=True)
        raise
    finally:
        sys.unraisablehook = hook
        end_children()
        for number, handler in before.items():
            signal.signal(number, handler)


def take_over(trainer: Any) -> None:
    """Disable Lightning's signal handlers, which ignore SIGTERM and send signals to other ranks."""
    trainer._signal_connector.register_signal_handlers = int  # does nothing
    if hasattr(trainer.strategy.launcher, "_call_children_scripts"):
        LAUNCHERS.append(trainer.strategy.launcher)


@contextlib.contextmanager
def connecting() -> Iterator[None]:
    """Let signals and lost children end this process while torch waits for the others, when no handler can run."""
    ENDING.clear()
    take_children()
    threading.Thread(target=follow_children, daemon=True).start()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    connected = threading.Event()

    def follow_signals() -> None:
        with open(reading, "rb", buffering=0) as pipe:
            received = pipe.read(1)
            if received and not connected.wait(GRACE):
                leave(128 + received[0], f"{signal.Signals(received[0]).name}: ended before all processes connected")

    threading.Thread(target=follow_signals, daemon=True).start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        connected.set()
        os.close(writing)


def follow_children() -> None:
    """End this process when a child has failed, with the code of the child."""
    while CHILDREN:
        time.sleep(1)
        failed = next((code for child in [*CHILDREN] if (code := child.poll())), 0)
        if failed and not ENDING.wait(GRACE) and CHILDREN:
            how = f"ended with code {failed}" if failed > 0 else f"was ended by {signal.Signals(-failed).name}"
            leave(failed if failed > 0 else exit_codes.LOST, f"this process ends, because another of this run {how}")


def leave(code: int, message: str) -> None:
    """End at once, without Python's own end, which would wait for the main thread."""
    with contextlib.suppress(OSError):
        print(message, file=sys.stderr, flush=True)
    os._exit(code)


def take_children() -> None:
    """Take over the child processes from Lightning, which would kill this process if one of them fails."""
    for launcher in LAUNCHERS:
        CHILDREN.extend(launcher.procs)
        launcher.procs.clear()


def end_children() -> None:
    """End child processes with the signal that ends this process; without one, wait for their error messages first."""
    ENDING.set()
    take_children()
    error = sys.exception()
    number = error.number if isinstance(error, Interrupted) else 0
    for child in CHILDREN if number else ():
        child.send_signal(number)
    for spawned in multiprocessing.active_children() if number else ():
        if spawned.pid and not spawned.daemon:  # Python would wait for it
            os.kill(spawned.pid, number)
    for child in CHILDREN:
        try:
            child.wait(5 if error else 30)
        except subprocess.TimeoutExpired:  # it waits for this process
            child.kill()
    CHILDREN.clear()
