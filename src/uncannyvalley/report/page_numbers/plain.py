"""Numbers of numpy as JSON has them."""

import math

import numpy as np

DIGITS = 6
"""Significant digits of numbers that are only drawn."""


def finite_or_none(value: float) -> float | None:
    """The number to six significant digits, None where it is NaN or infinite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def plain_list(values: np.ndarray) -> list[float | None]:
    """The same of each."""
    return [finite_or_none(one) for one in values.tolist()]
