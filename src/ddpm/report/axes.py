"""Axes of a drawing: where a value lies, and at which round values the ticks are."""

import math
from dataclasses import dataclass

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MOST_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """low < high; both above 0 where log."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: list[float], log: bool = False, margin: float = 0.04) -> "Axis":
        """An axis that holds all values with a little room on both sides. log is followed where all are above 0."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        log = log and low > 0
        if log:
            low, high = math.log(low), math.log(high)
        if high - low <= 1e-9 * max(1.0, abs(high)):
            room = math.log(1.5) if log else (abs(high) * 0.1 or 1.0)
        else:
            room = (high - low) * margin
        low, high = low - room, high + room
        return cls(math.exp(low), math.exp(high), True) if log else cls(low, high)

    def at(self, value: float) -> float:
        """0 at low, 1 at high; what lies beyond is put at the edge."""
        if self.log:
            share = math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))

    def ticks(self, most: int = MOST_TICKS) -> list[tuple[float, str]]:
        return self.log_ticks(most) if self.log else self.linear_ticks(most)

    def linear_ticks(self, most: int) -> list[tuple[float, str]]:
        rough = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [step * k for k in range(first, last + 1)]
        top = max(abs(self.low), abs(self.high))
        if top < 1e-3:  # digits before the power of ten, one power for all ticks
            power = math.floor(math.log10(top))
            return [
                (v, "0" if v == 0 else f"{v / 10.0**power:.3g}·10{str(power).translate(SUPERSCRIPT)}") for v in values
            ]
        digits = max(0, -math.floor(math.log10(step) + 1e-9)) + (1 if abs(step / unit - 2.5) < 1e-9 else 0)
        return [
            (
                v,
                counted(v)
                if top >= 10_000
                else f"{v:,.0f}"
                if top >= 1000
                else f"{abs(v) if v == 0 else v:.{digits}f}",
            )
            for v in values
        ]

    def log_ticks(self, most: int) -> list[tuple[float, str]]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(1 + k / 10 for k in range(90))):
            values = [f * 10.0**d for d in decades for f in factors if self.low <= f * 10.0**d <= self.high]
            if len(values) >= 3:
                break
        every = -(-len(values) // most)
        return [(v, power_of_ten(v)) for v in values[::every]]


def counted(value: float) -> str:
    """12500 as 12.5k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def power_of_ten(value: float) -> str:
    """0.02 to 500 as digits, others as powers of ten."""
    if 0.005 <= value < 1000:
        return f"{value:.3g}"
    power = math.floor(math.log10(value) + 1e-9)
    factor = value / 10.0**power
    ten = f"10{str(power).translate(SUPERSCRIPT)}"
    return ten if abs(factor - 1) < 1e-6 else f"{factor:.2g}·{ten}"
