"""Plot a schedule among the others: SNR, alpha_bar and betas over t / T, and what an adjustment changes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ddpm.base.plots import nested, save_figure
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.schedule_check.examination import decibels_of, single_betas

LOWEST, HIGHEST = -60, 55  # dB


def draw_schedule(
    path: Path,
    name: str,
    schedule: NoiseSchedule,
    others: Mapping[str, NoiseSchedule],
    adjusted: Mapping[str, NoiseSchedule],
) -> None:
    """Write a PNG. others: schedules with the same T, by name. adjusted: the one that this schedule adjusts, if any."""
    titles = ["SNR", "alpha_bar", "beta of each step", *(f"change of SNR by {name}" for name in adjusted)]
    units = ["dB", "share of signal", "share of noise", "dB"]
    figure = Figure(figsize=(4.2 * len(titles) + 1.8, 4.6), layout="constrained")
    panels = figure.subplots(1, len(titles))
    add_curve(panels, name, schedule, color="black", linewidth=2.6, zorder=3)
    for inner, before in adjusted.items():
        add_curve(panels, f"{inner}, which it adjusts", before, color="black", linewidth=1.5, linestyle=":", zorder=4)
        difference = decibels_of(schedule) - decibels_of(before)
        panels[3].plot(torch.arange(1, schedule.T + 1) / schedule.T, difference, color="black", linewidth=2.6)
        panels[3].set_title(f"change of {inner}'s SNR")
        mark_end(panels[3], difference, (0.8, 0.5))
    colours = colormaps["tab10"].colors
    others = {key: each for key, each in others.items() if key not in adjusted}
    for number, (title, other) in enumerate(others.items()):
        look = {"color": colours[number % len(colours)], "linestyle": "-" if number < len(colours) else "--"}
        look["linewidth"] = nested(number, len(others), 2, 0.9)
        add_curve(panels, title, other, alpha=0.85, **look)
    for axes, title, unit in zip(panels, titles, units, strict=False):
        axes.set(title=axes.get_title() or title, xlabel="t / T", ylabel=unit, xlim=(0, 1))
        axes.grid(alpha=0.3)
    panels[0].set_ylim(LOWEST, HIGHEST)
    mark_end(panels[0], decibels_of(schedule), (0.95, 0.9))
    panels[2].set_yscale("log")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
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
