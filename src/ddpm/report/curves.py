"""Curves as inline SVG. Colours and dashes are classes, so that the page's style chooses them for light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ddpm.report.axes import Axis
from ddpm.report.markup import Markup, named, tag
from ddpm.report.rounding import readable, with_error
from ddpm.report.series import thinned

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 26, 36
MOST_POINTS = 400
MOST_TOOLTIPS = 60
NUM_COLOURS = 8


def colour(run: int) -> str:
    """The classes of a run: one of 8 colours, and a dash that tells the ninth run from the first."""
    return f"c{run % NUM_COLOURS} d{run // NUM_COLOURS % 3}"


@dataclass
class Curve:
    """x, y: float `[N]`. run: its number, for the colour. error: half the height of a band about it.

    faint: y before smoothing, drawn behind. odd: places on x where y was no number.
    """

    label: str
    run: int
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray | None = None
    faint: np.ndarray | None = None
    odd: np.ndarray = field(default_factory=lambda: np.zeros(0))


@dataclass
class Frame:
    """The area within the axes, in the drawing's units."""

    x: Axis
    y: Axis

    def place(self, x: float, y: float) -> tuple[float, float]:
        return (
            round(LEFT + (WIDTH - LEFT - RIGHT) * self.x.at(x), 1),
            round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * self.y.at(y), 1),
        )

    def path(self, x: np.ndarray, y: np.ndarray) -> str:
        places = [self.place(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        return "M" + "L".join(f"{a:g} {b:g}" for a, b in places)

    def scales(self, x_label: str, y_label: str, rules: bool = True) -> list[Markup]:
        """The texts at the ticks, with rules across at those of y, and what the axes are."""
        parts = []
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        for value, text in self.y.ticks(5):
            _, y = self.place(self.x.low, value)
            parts.append(tag("path", d=f"M{LEFT} {y:g}H{right}", class_="rule") if rules else "")
            parts.append(tag("text", text, x=LEFT - 6, y=y + 3.5, class_="end"))
        for value, text in self.x.ticks(5):
            x, _ = self.place(value, self.y.low)
            parts.append(tag("path", d=f"M{x:g} {bottom}v4", class_="tick"))
            parts.append(tag("text", text, x=x, y=bottom + 15, class_="middle"))
        parts.append(tag("path", d=f"M{LEFT} {bottom}H{right}", class_="tick"))
        parts.append(tag("text", x_label, x=right, y=HEIGHT - 5, class_="end what"))
        logarithmic = ", log scale" if self.y.log else ""
        parts.append(tag("text", y_label + logarithmic, x=0, y=11, class_="what"))
        return parts


def use_log(values: np.ndarray) -> bool:
    """Where a linear axis would press most of the curve to its foot."""
    return len(values) > 0 and bool(values.min() > 0) and bool(values.max() > 8 * values.min())


def chart(curves: Sequence[Curve], x_label: str, y_label: str, about: str, log: bool | None = None) -> Markup:
    """The drawing. about: what a reader who does not see it is told. log: None chooses by the values."""
    with_points = [curve for curve in curves if len(curve.x)]
    seen = [curve.y if curve.faint is None else np.concatenate([curve.y, curve.faint]) for curve in with_points]
    values = np.concatenate(seen) if seen else np.zeros(0)
    log = use_log(values) if log is None else log and bool((values > 0).all())
    for curve in with_points if not log else ():
        if curve.error is not None:
            values = np.concatenate([values, curve.y - curve.error, curve.y + curve.error])
    places = np.concatenate([np.concatenate([curve.x, curve.odd]) for curve in curves])
    frame = Frame(Axis.around(places.tolist(), margin=0.01), Axis.around(values.tolist(), log))
    parts = frame.scales(x_label, y_label)
    for curve in with_points:
        parts += behind(frame, curve)
    for curve in with_points:
        parts += line(frame, curve, x_label)
    parts += [cross(frame, curve, x_label) for curve in curves if len(curve.odd)]
    kind = "chart many" if len(with_points) > 5 else "chart"
    return tag("svg", parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=about, class_=kind)


def behind(frame: Frame, curve: Curve) -> list[Markup]:
    parts = []
    if curve.error is not None and len(curve.x) > 1:
        x = np.concatenate([curve.x, curve.x[::-1]])
        y = np.concatenate([curve.y + curve.error, (curve.y - curve.error)[::-1]])
        parts.append(tag("path", d=frame.path(x, y) + "Z", class_=f"band {colour(curve.run)}"))
    if curve.faint is not None:
        x, y = thinned(curve.x, curve.faint, MOST_POINTS)
        parts.append(tag("path", d=frame.path(x, y), class_=f"faint {colour(curve.run)}"))
    return parts


def line(frame: Frame, curve: Curve, x_label: str) -> list[Markup]:
    x, y = thinned(curve.x, curve.y, MOST_POINTS)
    parts = [tag("path", tag("title", curve.label), d=frame.path(x, y), class_=f"line {colour(curve.run)}")]
    few = len(curve.x) <= 25
    for k in np.unique(np.linspace(0, len(curve.x) - 1, min(len(curve.x), MOST_TOOLTIPS)).round().astype(int)):
        a, b = frame.place(float(curve.x[k]), float(curve.y[k]))
        error = "" if curve.error is None else f" ± {readable(float(curve.error[k]))}"
        told = f"{curve.label}: {readable(float(curve.y[k]))}{error} at {x_label} {readable(float(curve.x[k]))}"
        if few:
            parts.append(tag("circle", cx=a, cy=b, r=2.2, class_=f"dot {colour(curve.run)}"))
        parts.append(tag("circle", tag("title", told), cx=a, cy=b, r=5, class_="touch"))
    return parts


def cross(frame: Frame, curve: Curve, x_label: str) -> Markup:
    """A cross at the upper edge for each step at which the value was no number."""
    places = [frame.place(float(x), frame.y.high)[0] for x in curve.odd[:MOST_POINTS]]
    marks = "".join(f"M{x - 3:g} {TOP - 3}l6 6m0 -6l-6 6" for x in dict.fromkeys(places))
    told = f"{curve.label}: NaN or infinite, first at {x_label} {readable(float(curve.odd[0]))}"
    return tag("path", tag("title", told), d=marks, class_=f"line {colour(curve.run)}")


def swatch(run: int) -> Markup:
    """A short piece of a run's line. It says nothing that the name beside it does not."""
    return tag(
        "svg", tag("path", d="M1 5H21", class_=f"line thick {colour(run)}"),
        viewBox="0 0 22 10", class_="swatch", aria_hidden="true",
    )  # fmt: skip


def legend(curves: Sequence[Curve]) -> Markup:
    """Each run with its last value."""
    rows = []
    for curve in curves:
        last = readable(float(curve.y[-1])) if len(curve.y) else "no number"
        if len(curve.y) and curve.error is not None:
            last = " ± ".join(filter(None, with_error(float(curve.y[-1]), float(curve.error[-1]))))
        rows.append(tag("li", swatch(curve.run), named(curve.label), " ", tag("span", last, class_="value")))
    return tag("ul", rows, class_="legend")
