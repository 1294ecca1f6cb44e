"""Plot a schedule among the others: SNR, alpha_bar and betas over t / T, and what an adjustment changes."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ddpm.base.plots import save_figure, set_apart
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.schedule_check.examination import decibels_of, single_betas

LOWEST, HIGHEST = -60, 55  # dB

Schedules = Mapping[str, NoiseSchedule]


def draw_schedule(path: Path, name: str, schedule: NoiseSchedule, others: Schedules, adjusted: Schedules) -> None:
    """Write a PNG. others: schedules with the same T, by name. adjusted: the one that this schedule adjusts, if any."""
    titles = ["SNR", "alpha_bar", "beta of each step", *(f"change of the SNR of {inner}" for inner in adjusted)]
    units = ["dB", "share of signal", "share of noise", "dB"]
    figure = Figure(figsize=(4.2 * len(titles) + 1.8, 4.6), layout="constrained")
    panels = figure.subplots(1, len(titles))
    shown = {title: other for title, other in others.items() if title not in adjusted}
    for colour, (title, other) in zip(itertools.cycle(colormaps["tab20"].colors), shown.items(), strict=False):
        add_curve(panels, title, other, color=colour, linewidth=1.5)
    panels[0].set_ylim(LOWEST, HIGHEST)
    panels[2].set_yscale("log")
    for axes in panels:
        set_apart(axes)
    add_curve(panels, name, schedule, color="black", linewidth=2.8, zorder=1.9)
    for inner, before in adjusted.items():
        add_curve(panels, f"{inner}, which it adjusts", before, color="black", linewidth=1.5, linestyle=":", zorder=4)
        difference = decibels_of(schedule) - decibels_of(before)
        panels[3].plot(torch.arange(1, schedule.T + 1) / schedule.T, difference, color="black", linewidth=2.6)
        mark_end(panels[3], difference, (0.8, 0.5))
    for axes, title, unit in zip(panels, titles, units, strict=False):
        axes.set(title=title, xlabel="t / T", ylabel=unit, xlim=(0, 1))
        axes.grid(alpha=0.3)
    mark_end(panels[0], decibels_of(schedule), (0.95, 0.9))
    own_first = np.roll(np.array(panels[0].get_legend_handles_labels(), dtype=object), -len(shown), axis=1)
    figure.legend(*own_first.tolist(), loc="outside right center", fontsize="small")
    figure.suptitle(f"{name}, T = {schedule.T}")
    save_figure(figure, path)


def add_curve(panels: Sequence[Axes], name: str, schedule: NoiseSchedule, **style: object) -> None:
    """Add the three curves of one schedule. An SNR of 0 is not drawn."""
    share = torch.arange(schedule.T + 1) / schedule.T
    marker = {"marker": "o", "markersize": 3} if schedule.T <= 20 else {}
    panels[0].plot(share[1:], decibels_of(schedule), label=name, **style, **marker)
    panels[1].plot(share, schedule.alpha_bar, **style, **marker)
    panels[2].plot(share[1:], single_betas(schedule), **style, **marker)


def mark_end(axes: Axes, levels: Tensor, place: tuple[float, float]) -> None:
    """An arrow down at T if no signal is left there. place: of the words, as a share of the panel."""
    if levels[-1].isneginf():
        axes.annotate(
            "no signal at T", (1, 0.01), place, xycoords="axes fraction", ha="right",
            arrowprops={"arrowstyle": "-|>", "color": "black"}, annotation_clip=False,
        )  # fmt: skip
