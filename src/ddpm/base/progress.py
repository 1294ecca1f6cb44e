"""Progress of a long job and of its stages: bars in a terminal, occasional plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn


def clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


class Bars(Progress):
    def get_renderables(self) -> Iterator[RenderableType]:
        """Each bar has a width of its own: one table of all would shrink every bar by the longest text."""
        return (self.make_tasks_table([task]) for task in self.tasks)


class ProgressDisplay:
    """unit: name of what is counted, for example "step". total: None if it is unknown. every_seconds: time between
    plain lines, less in the first seconds of a long job; a bar is updated each second.
    first: count at the start of this process.

    A display that starts while another one is open shows a stage of it: it adds a bar below, and its time does not
    count in the rate of the other one.
    """

    FIRST_SECONDS = 2  # until the first line of a long job
    opened: ClassVar[list["ProgressDisplay"]] = []  # the outermost first

    def __init__(self, unit: str, total: int | None, first: float = 0, every_seconds: float = 15) -> None:
        self.unit, self.total, self.first = unit, total, first
        self.begun = self.start = self.shown = time.perf_counter()
        outer, console = self.opened[-1] if self.opened else None, Console()
        self.every_seconds = min(1.0, every_seconds) if console.is_terminal else every_seconds
        self.bar: Progress | None = outer.bar if outer else None
        if console.is_terminal and not outer:
            columns = [TextColumn("{task.fields[text]}", markup=False), BarColumn()]
            columns += [TextColumn("{task.description}", markup=False)]
            self.bar, streams = Bars(*columns, console=console), (sys.stdout, sys.stderr)
            self.bar.start()
            redirect_logs(streams, (sys.stdout, sys.stderr))
        if self.bar:
            self.task = self.bar.add_task("", total=total, completed=int(first), text=self.text(first))
        self.opened.append(self)

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(self, *error: object) -> None:
        self.close(is_done=error[0] is None)

    def text(self, done: float) -> str:
        of, outside = (" of ", ": ") if not self.bar else ("/", "")
        return self.unit if self.total is None else f"{self.unit} {done:.0f}{of}{self.total}{outside}"

    def is_due(self, done: float) -> bool:
        """Whether the display should be updated now. Compute an expensive `note` only then."""
        since, waits = time.perf_counter() - self.shown, self.every_seconds
        if done > self.first and self.left(done) > waits:  # after 2, 4, 8, ... seconds at first
            waits = min(waits, max(self.FIRST_SECONDS, self.shown - self.start))
        return since >= waits or done >= (self.total or 0)

    def rate(self, done: float) -> float:
        """Units per second since the start, without the time of stages."""
        return (done - self.first) / max(time.perf_counter() - self.start, 1e-9)

    def left(self, done: float) -> float:
        """Estimate of the remaining seconds."""
        return ((self.total or done) - done) / self.rate(done)

    def show(self, done: float, note: str) -> None:
        self.shown = time.perf_counter()
        times = f"{clock(self.shown - self.begun)} elapsed"
        times += f", {clock(self.left(done))} left" if done > self.first else ""
        if self.bar:
            self.bar.update(self.task, completed=done, text=self.text(done), description=f"{note}  {times}")
        else:
            print(f"{self.text(done)}{note}, {times}", flush=True)

    def close(self, is_done: bool = False) -> None:
        """Close this display and those of its stages. A second call has no effect. is_done: a bar stays at its end."""
        if self not in self.opened:
            return
        if is_done and self.bar and self.total:
            self.show(self.total, "done")
        place = self.opened.index(self)
        del self.opened[place:]
        if self.bar and place:
            self.bar.remove_task(self.task)
        elif self.bar:
            streams = sys.stdout, sys.stderr
            self.bar.stop()
            redirect_logs(streams, (sys.stdout, sys.stderr))
        if place:
            outer, pause = self.opened[-1], time.perf_counter() - self.begun
            outer.start, outer.shown = outer.start + pause, outer.shown + pause


def redirect_logs(streams: tuple[TextIO, TextIO], others: tuple[TextIO, TextIO]) -> None:
    """Let the handlers of the root logger that write to `streams` write to `others`: above the bars, not into them."""
    for handler in logging.getLogger().handlers:
        for stream, other in zip(streams, others, strict=True):
            if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                handler.setStream(other)
                break


@contextmanager
def stage(what: str, visible: bool = True) -> Iterator[None]:
    """Name a stage without countable parts while it lasts."""
    display = ProgressDisplay(what, None) if visible else None
    try:
        if display and display.bar:
            display.show(0, "")
        yield
    finally:
        if display:
            display.close()
