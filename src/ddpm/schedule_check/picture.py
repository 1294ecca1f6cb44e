"""Plot a schedule among the others: log-SNR, alpha_bar and betas over t / T."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm.base.plots import save_figure
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.schedule_check.examination import log_snr_of, single_betas


def draw_schedule(path: Path, name: str, schedule: NoiseSchedule, others: Mapping[str, NoiseSchedule]) -> None:
    """Write a PNG. others: schedules with the same T, by name."""
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    panels = figure.subplots(1, 3)
    styles = {"linewidth": 1.2, "alpha": 0.85}
    colours = colormaps["tab10"].colors
    for number, (title, other) in enumerate(others.items()):
        dash = "-" if number < len(colours) else "--"
        add_curve(panels, title, other, color=colours[number % len(colours)], linestyle=dash, **styles)
    add_curve(panels, name, schedule, color="black", linewidth=2.6, zorder=3)
    for axes, title in zip(panels, ("log-SNR", "alpha_bar", "beta of each step"), strict=True):
        axes.set(title=title, xlabel="t / T", xlim=(0, 1))
        axes.grid(alpha=0.3)
    panels[0].set_ylim(-14, 12)
    panels[2].set_yscale("log")
    lines, titles = panels[0].get_legend_handles_labels()
    order = [len(lines) - 1, *range(len(lines) - 1)]
    figure.legend([lines[i] for i in order], [titles[i] for i in order], loc="outside right center", fontsize="small")
    figure.suptitle(f"{name}, T = {schedule.T}")
    save_figure(figure, path)


def add_curve(panels: Sequence[Axes], name: str, schedule: NoiseSchedule, **style: object) -> None:
    """Add the three curves of one schedule. A log-SNR of minus infinity is not drawn."""
    share = torch.arange(schedule.T + 1) / schedule.T
    marker = {"marker": "o", "markersize": 3} if schedule.T <= 20 else {}
    panels[0].plot(share[1:], log_snr_of(schedule), label=name, **style, **marker)
    panels[1].plot(share, schedule.alpha_bar, **style, **marker)
    panels[2].plot(share[1:], single_betas(schedule), **style, **marker)
