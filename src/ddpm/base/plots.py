"""Figures as PNG files."""

from pathlib import Path
from typing import TYPE_CHECKING

from ddpm.base.atomic import atomic_write

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.figure import Figure


def nested(number: int, num: int, widest: float, thinnest: float) -> float:
    """The width of a line or marker of several, in the order of drawing. Each is thinner than those below it, so that
    equal curves do not hide each other."""
    return widest - (widest - thinnest) * number / max(1, num - 1) if num > 1 else (widest + thinnest) / 2


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG with 120 dots per inch, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
