"""Curves as inline SVG, drawn by matplotlib. Colours are CSS variables of the page.

matplotlib draws the numbers at the axes; names from files are added as escaped text.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import matplotlib.style
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, StrMethodFormatter

from ddpm.base.plots import set_apart
from ddpm.evaluation.table import format_estimate
from ddpm.metrics.score import Estimate
from ddpm.report.series import thin

WIDTH, HEIGHT = 400, 250
NUM_COLOURS = 8
DASHES = ("-", (0, (5, 3)), (0, (1, 2.5)))  # line styles from the ninth run on
MOST_CROSSES, ALL_POINTS, ALL_TOOLTIPS = 50, 5_000, 240  # limits for a curve and for a chart
TEXT, RULE, RUN = "#000010", "#000011", "#00002{}"  # placeholders of the variables --c10, --c11, and --c20 to --c27
STYLE = {
    **{"svg.fonttype": "none", "svg.hashsalt": "ddpm", "text.parse_math": False, "figure.dpi": 72},
    **{"figure.facecolor": "none", "axes.facecolor": "none", "axes.grid": True, "axes.xmargin": 0.01},
    **{f"axes.spines.{side}": False for side in ("top", "left", "right")},
    **{"axes.edgecolor": TEXT, "xtick.labelcolor": TEXT, "ytick.labelcolor": TEXT, "grid.color": RULE},
    **{"xtick.bottom": False, "ytick.left": False, "axes.formatter.limits": (-3, 6)},
}
NEEDLESS = re.compile(r' (id|clip-path)="[^"]*"|</?g\b[^>]*>| transform="rotate[^"]*"|font-size[^"]*sans-serif;')
"""Parts of the SVG to remove, because they would be most of the page: ids, groups, fonts."""

POINT = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.2" fill="{}"><title>{}: {} at {} {:,.6g}</title></circle>')
CROSS = Markup('<text x="{:.1f}" y="21" fill="{}" class="cross">&times;<title>{}: no number at {} {:,}</title></text>')


def format_rounded(value: float, error: float | None = None) -> str:
    """Text such as "3.17 ± 0.03", with as many digits as the error allows; four significant digits without an error."""
    if error and 1e-9 * abs(value) < error < 1e9:
        return format_estimate(Estimate(value, error))
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


@dataclass
class Curve:
    """x, y: float `[N]`. run: number of the run, for the colour. error: `[N]`, half the height of the error band, or
    None.

    faint: y before smoothing, drawn behind. odd: values of x where y was not finite.
    """

    label: str
    run: int
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray | None = None
    faint: np.ndarray | None = None
    odd: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def value(self, k: int) -> str:
        return format_rounded(float(self.y[k]), None if self.error is None else float(self.error[k]))


def chart(curves: Sequence[Curve], x_label: str, y_label: str, about: str, may_be_log: bool = True) -> Markup:
    """Draw a chart, with a log scale if most curves would be flat on a linear one. about: alternative text."""
    values = np.concatenate([curve.y if curve.faint is None else curve.faint for curve in curves])
    is_log = may_be_log and len(values) > 0 and bool(0 < 8 * values.min() < values.max())
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure((WIDTH / 72, HEIGHT / 72))
        axes = figure.add_axes((0.135, 0.145, 0.845, 0.76), yscale="log" if is_log else "linear")
        for curve in curves:
            draw_curve(axes, curve, len(curves), is_log)
        set_apart(axes)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10), integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if is_log:
            low, high = axes.get_ylim()
            factors = (1,) if high > 1000 * low else (1, 3) if high > 30 * low else (1, 2, 5)
            axes.yaxis.set_major_locator(MaxNLocator(5) if high < 5 * low else LogLocator(subs=factors, numticks=8))
            axes.minorticks_off()
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        else:
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.5g}"))
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = NEEDLESS.sub("", file.getvalue().split("</defs>", 1)[1].removesuffix("</svg>\n"))
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), text)
    text = re.sub(r"\s+", " ", re.sub(r"#0000(\d\d)", r"var(--c\1)", text))
    label = Markup('<text x="{}" y="{}" class="axis {}">{}</text>')
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="chart">{}{}{}{}</svg>').format(
        WIDTH, HEIGHT, about, Markup(text), label.format(0, 11, "", y_label + ", log scale" * is_log),
        label.format(WIDTH - 8, HEIGHT - 5, "end", x_label),
        Markup().join(mark for curve in curves for mark in marks(axes, curve, x_label, ALL_TOOLTIPS // len(curves))),
    )  # fmt: skip


def draw_curve(axes: Axes, curve: Curve, num_curves: int, is_log: bool) -> None:
    x, y, most = curve.x, curve.y, min(400, ALL_POINTS // num_curves)
    style = {"color": RUN.format(curve.run % NUM_COLOURS), "clip_on": False}
    if curve.error is not None and len(y) == 1:
        axes.errorbar(x, y, curve.error, capsize=3, **style)
    elif curve.error is not None:
        low = np.maximum(y - curve.error, 0.9 * y.min() if is_log else -np.inf)
        axes.fill(np.r_[x, x[::-1]], np.r_[low, (y + curve.error)[::-1]], alpha=0.16, linewidth=0, **style)
    if curve.faint is not None and num_curves <= NUM_COLOURS:
        axes.plot(*thin(x, curve.faint, most), linewidth=0.8, alpha=1.5 / (num_curves + 1), **style)
    axes.plot(*thin(x, y, most), linestyle=DASHES[curve.run // NUM_COLOURS % len(DASHES)], zorder=3, **style)
    axes.update_datalim([(step, 1) for step in curve.odd], updatey=False)


def marks(axes: Axes, curve: Curve, x_label: str, num: int) -> Iterator[Markup]:
    """Tooltips with values, on visible dots if there are few points, and crosses where y was not finite."""
    colour = f"var(--c2{curve.run % NUM_COLOURS})"
    for k in np.unique(np.linspace(0, len(curve.x) - 1, max(8, num)).round().astype(int)) if len(curve.x) else ():
        x, y = axes.transData.transform((curve.x[k], np.clip(curve.y[k], *axes.get_ylim())))
        fill = colour if len(curve.x) <= 25 else "none"
        yield POINT.format(x, HEIGHT - y, fill, curve.label, curve.value(k), x_label, float(curve.x[k]))
    for step in curve.odd[:MOST_CROSSES]:
        yield CROSS.format(axes.transData.transform((step, 1))[0], colour, curve.label, x_label, step)
