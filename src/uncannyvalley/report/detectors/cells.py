"""Numbers with their intervals as cells of tables."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uncannyvalley.detect.evaluation.rates import Rate
    from uncannyvalley.detect.evaluation.roc import Interval


def rate(one: "Rate | None") -> str:
    """In percent with its interval."""
    if one is None or not one.out_of:
        return "–"
    return f"{100 * one.value:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def whole(one: "Rate | None") -> str:
    """In whole percents with its interval, for wide tables."""
    if one is None or not one.out_of:
        return "–"
    return f"{100 * one.value:.0f} [{100 * one.low:.0f}, {100 * one.high:.0f}]"


def area(one: "Interval") -> str:
    """An AUROC with its interval."""
    if not math.isfinite(one.value):
        return "–"
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def short_area(one: "Interval") -> str:
    """An AUROC with the decimals of its interval alone, for wide tables."""
    if not math.isfinite(one.value):
        return "–"
    low, high = (f"{end:.2f}".removeprefix("0").removesuffix(".00") for end in (one.low, one.high))
    return f"{one.value:.3f} [{low or 0}, {high or 0}]"


def gain(one: "Interval") -> str:
    """A difference of two AUROCs with its sign, and its interval in hundredths."""
    if not math.isfinite(one.value):
        return "–"
    value, low, high = (
        text.replace("0.", ".", 1) for text in (f"{one.value:+.3f}", f"{one.low:+.2f}", f"{one.high:+.2f}")
    )
    return f"{value} [{low}, {high}]"


def number(value: float, digits: int) -> str:
    """A number, or a dash where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
