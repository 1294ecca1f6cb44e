"""Progress of a long job: a bar in a terminal, occasional plain lines elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


class ProgressDisplay:
    """unit: name of what is counted, for example "step". every_seconds: time between plain lines; a bar is updated each
    second. first: count at the start of this process.
    """

    def __init__(self, unit: str, total: int, first: float = 0, every_seconds: float = 15) -> None:
        self.unit, self.total, self.first = unit, total, first
        self.start = self.shown = time.perf_counter()
        console = Console()
        self.every_seconds = min(1.0, every_seconds) if console.is_terminal else every_seconds
        self.bar: Progress | None = None
        if console.is_terminal:
            columns = [TextColumn(unit + " {task.completed:.0f}/{task.total}"), BarColumn()]
            columns += [TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn()]
            self.bar = Progress(*columns, console=console)
            self.task = self.bar.add_task("", total=total, completed=first)
            self.bar.start()

    def is_due(self, done: float) -> bool:
        """Whether the display should be updated now. Compute an expensive `note` only then."""
        return time.perf_counter() - self.shown >= self.every_seconds or done >= self.total

    def rate(self, done: float) -> float:
        """Units per second since the start."""
        return (done - self.first) / max(time.perf_counter() - self.start, 1e-9)

    def show(self, done: float, note: str) -> None:
        self.shown = time.perf_counter()
        if self.bar:
            self.bar.update(self.task, completed=done, description=note)
        else:
            left = f", {clock((self.total - done) / self.rate(done))} left" if done > self.first else ""
            print(f"{self.unit} {done:.0f} of {self.total}: {note}{left}", flush=True)

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
