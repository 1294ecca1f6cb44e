"""What task=anomaly leaves for people: a table of all maps and baselines, and a sheet of pictures."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor

from ddpm.data.anomalies.base import AnomalySet
from ddpm.evaluation.model_metrics.anomaly_values import Value
from ddpm.evaluation.table import align_columns
from ddpm.tasks.sheet import sheet

PRINTED = ("auroc_pixel", "aupro", "ap_pixel", "dice", "iou", "sensitivity", "specificity", "auroc_image")
WITH_INTERVAL = ("auroc_pixel", "aupro", "auroc_image")

Rows = Mapping[str, Mapping[str, Value]]


def anomaly_table(rows: Rows) -> list[str]:
    cells = [["", *PRINTED]]
    for title, values in rows.items():
        cells.append([title, *(format_value(values[name], name in WITH_INTERVAL) for name in PRINTED)])
    return align_columns(cells).splitlines()


def format_value(value: Value, interval: bool) -> str:
    return f"{value.estimate.value:.3f}" + (f" [{value.low:.3f}, {value.high:.3f}]" if interval else "")


def anomaly_rows(rows: Rows) -> list[dict[str, Any]]:
    """A row a map; each value has its 95 % interval beside it."""
    table = []
    for title, values in rows.items():
        table.append({"map": title})
        for name, (estimate, low, high) in values.items():
            table[-1] |= {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
    return table


def anomaly_picture(
    found: AnomalySet, first: Tensor, places: Tensor, maps: Tensor, threshold: float, title: str
) -> Tensor:
    """uint8 `[H, W, 3]`. first: `[K, 3, C, H, W]`, what the columns input, noised and restored show."""
    largest = float(maps[places].flatten().quantile(0.995))
    cells = []
    for (image, noised, restored), place in zip(first, places.tolist(), strict=True):
        found_here, truth = ((each[None].float() * 2 - 1) for each in (maps[place] > threshold, found.masks[place]))
        cells.append(
            [image, noised.clamp(-1, 1), restored.clamp(-1, 1), colour_map(maps[place] / largest), found_here, truth]
        )
    rows = [f"{found.kinds[place]}\nimage {int(found.numbers[place])}" for place in places.tolist()]
    columns = ["input", "noised", "restored", "map", "found", "truth"]
    return sheet(cells, rows, columns, f"{title}; maps from 0, black, to {largest:.2g}; found: above {threshold:.2g}")


def colour_map(values: Tensor) -> Tensor:
    """`[3, H, W]` in [-1, 1] from values `[H, W]`, of which 0..1 is black to bright yellow."""
    colours = np.asarray(matplotlib.colormaps["inferno"](values.clamp(0, 1).numpy()))[..., :3]
    return torch.from_numpy(colours).permute(2, 0, 1).float() * 2 - 1
