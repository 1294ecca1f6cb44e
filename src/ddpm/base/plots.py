"""Figures as PNG files, where they are written, and lines that lie on each other."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddpm.base.atomic import atomic_write

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

NEAR, DASH = 3.0, 5.0  # pixels; widths of the line


def set_apart(axes: "Axes") -> None:
    """Show all of the lines that lie on each other: as dashes in turn, and with smaller markers inside larger ones.
    Translucent lines are background and stay as they are. It is called when all lines are drawn."""
    axes.autoscale_view()  # matplotlib postpones it; distances in pixels need the limits
    groups: list[list[Line2D]] = []
    for line in axes.lines:
        if line.get_linestyle() != "None" and line.get_alpha() is None and line.get_transform() == axes.transData:
            near = [group for group in groups if distance(axes, group[0], line) < NEAR]
            groups += [] if near else [[]]
            (near or groups[-1:])[0].append(line)
    for group in groups:
        num = len(group)
        for place, line in enumerate(group if num > 1 else ()):
            line.set_linestyle((place * DASH, (DASH, (num - 1) * DASH)))
            line.set_markersize((1.5 - 0.9 * place / (num - 1)) * line.get_markersize())


def distance(axes: "Axes", one: "Line2D", other: "Line2D") -> float:
    """The median distance in pixels of two lines at the x that both have, or infinity."""
    _, *places = np.intersect1d(one.get_xdata(), other.get_xdata(), return_indices=True)
    pair = [np.asarray(line.get_xydata())[at] for line, at in zip((one, other), places, strict=True)]
    finite = np.isfinite(pair).all((0, 2))
    y, others = (axes.transData.transform(each[finite])[:, 1] for each in pair)
    return float(np.median(np.abs(y - others))) if finite.any() else np.inf


def describe_place(path: Path) -> str:
    """The path, and whether a picture there will be replaced; to be called before it is written."""
    return f"{path}, in place of an earlier one; out=FILE.png is another place" if path.exists() else str(path)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG with 120 dots per inch, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
