"""Numbers with as many digits as a reader has use for."""


def readable(value: float) -> str:
    """A value for a legend or a tooltip: four significant digits."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def decimals(value: float) -> int:
    """Of four significant digits, without the zeros at their end."""
    digits = f"{value:.4g}"
    return 0 if "e" in digits else len(digits.partition(".")[2])


def with_error(value: float, error: float | None, digits: int = 4) -> tuple[str, str]:
    """As many digits as the error leaves meaning in; where it is not known, those of the column."""
    if not error or not 0 < error < float("inf"):
        return f"{value:,.{digits}f}" if 1e-3 <= abs(value) < 1e9 or value == 0 else f"{value:.4g}", ""
    digits = min(12, max(0, 1 - int(f"{error:e}".partition("e")[2])))
    return f"{value:,.{digits}f}", f"{error:,.{digits}f}"
