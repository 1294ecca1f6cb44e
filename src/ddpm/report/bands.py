"""Loss by time t: as a profile at the end of training, and as a map over the steps."""

import math
import re
from dataclasses import dataclass

import numpy as np

from ddpm.report.axes import Axis
from ddpm.report.curves import HEIGHT, WIDTH, Frame
from ddpm.report.markup import Markup, tag
from ddpm.report.rounding import readable
from ddpm.report.series import Series

COLUMN = re.compile(r"train/loss_t/(\d{1,7})-(\d{1,7})")
MOST_COLUMNS = 50
MOST_BANDS = 100
SCALE = ((68, 1, 84), (65, 68, 135), (42, 120, 142), (34, 168, 132), (122, 209, 81), (253, 231, 37))
"""Matplotlib's viridis at six places: even in lightness, and told apart without red and green."""


@dataclass
class Bands:
    """Bands of times low..high `[B]`; loss float64 `[B, N]` at steps `[N]`, NaN where nothing was logged."""

    low: np.ndarray
    high: np.ndarray
    steps: np.ndarray
    loss: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        return (self.low + self.high) / 2

    def at_the_end(self) -> np.ndarray:
        """Mean of each band over the last tenth of the rows `[B]`, NaN where it has none."""
        last = self.loss[:, -max(1, len(self.steps) // 10) :]
        counts = np.isfinite(last).sum(1)
        return np.where(counts > 0, np.nansum(last, axis=1) / np.maximum(counts, 1), np.nan)


def bands(series: Series) -> Bands | None:
    found = [(int(m[1]), int(m[2]), name) for name in series.names if (m := COLUMN.fullmatch(name))]
    found = sorted(each for each in found if each[0] <= each[1])[:MOST_BANDS]
    if not found:
        return None
    loss = np.stack([series.values[name] for _, _, name in found])
    loss = np.where(np.isfinite(loss), loss, np.nan)
    there = np.isfinite(loss).any(0)
    low, high = np.array([each[0] for each in found]), np.array([each[1] for each in found])
    return Bands(low, high, series.steps[there], loss[:, there])


def common_range(maps: list[Bands]) -> tuple[float, float]:
    """Of the positive losses of all runs, without the topmost hundredth."""
    values = np.concatenate([each.loss[np.isfinite(each.loss)] for each in maps])
    values = values[values > 0]
    if not len(values):
        return 0.1, 1.0
    low, high = float(values.min()), float(np.quantile(values, 0.99))
    return (low, high) if high > low * 1.01 else (low / 1.1, low * 1.1)


def heat(value: float, low: float, high: float) -> str:
    share = min(1.0, max(0.0, math.log(max(value, 1e-300) / low) / math.log(high / low)))
    place = share * (len(SCALE) - 1)
    k = min(int(place), len(SCALE) - 2)
    mixed = (round(a + (b - a) * (place - k)) for a, b in zip(SCALE[k], SCALE[k + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def heat_map(each: Bands, limits: tuple[float, float], label: str) -> Markup:
    """Steps to the right, times upwards, colour the loss on a scale that all runs share."""
    edges = np.unique(np.linspace(0, len(each.steps), min(len(each.steps), MOST_COLUMNS) + 1).round().astype(int))
    begins = [0.0, *each.steps[:-1].tolist()]  # a row is about the steps since the one before
    across = Axis(0.0, max(1.0, float(each.steps[-1])))
    frame = Frame(across, Axis(float(each.low[0]) - 1, float(each.high[-1])))
    parts = []
    for k in range(len(edges) - 1):
        left, right = frame.place(begins[edges[k]], 0)[0], frame.place(float(each.steps[edges[k + 1] - 1]), 0)[0]
        part = each.loss[:, edges[k] : edges[k + 1]]
        for band in range(len(each.low)):
            values = part[band][np.isfinite(part[band])]
            if not len(values) or values.mean() <= 0:
                continue
            lower = frame.place(0, float(each.low[band]) - 1)[1]
            upper = frame.place(0, float(each.high[band]))[1]
            parts.append(
                tag(
                    "rect", x=f"{left:.1f}", y=f"{upper:g}", width=f"{right - left + 0.3:.1f}",
                    height=f"{lower - upper:.1f}", fill=heat(float(values.mean()), *limits),
                )
            )  # fmt: skip
    parts += frame.scales("step", "time t", rules=False)
    about = f"Loss by time and step of {label}"
    return tag("svg", parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=about, class_="chart map")


def scale_bar(low: float, high: float) -> Markup:
    """What the colours mean."""
    size = 40
    cells = [
        tag(
            "rect",
            x=60 + 5 * k,
            y=2,
            width=5.3,
            height=10,
            fill=heat(low * (high / low) ** (k / (size - 1)), low, high),
        )
        for k in range(size)
    ]
    texts = [
        tag("text", readable(low), x=54, y=11, class_="end"),
        tag("text", readable(high), x=66 + 5 * size, y=11),
    ]
    about = f"Colours from a loss of {readable(low)} to {readable(high)}, log scale"
    return tag("svg", cells, texts, viewBox="0 0 330 14", role="img", aria_label=about, class_="scale")
