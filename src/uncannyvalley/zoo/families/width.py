"""How a width factor scales the channels of a family."""

import math

import numpy as np

from uncannyvalley.checks import check_count
from uncannyvalley.errors import InputError


def scaled(channels: int, width: float) -> int:
    """``channels`` × ``width``, to the nearest whole number (halves to the even one), at least 1."""
    return max(1, round(channels * width))


def check_shape(width: float, classes: int, channels: int) -> tuple[float, int, int]:
    """The three settings of every family, or InputError.

    width     any finite number above 0; 1 is the published network
    classes   at least 2
    channels  of the images, at least 1
    """
    number = isinstance(width, (int, float, np.integer, np.floating)) and not isinstance(width, bool)
    if not number or not math.isfinite(width) or width <= 0:
        raise InputError(
            f"width must be a finite number above 0 (1 is the published network, 0.25 a quarter of its channels), "
            f"got {width!r}"
        )
    return float(width), check_count("classes", classes, 2), check_count("channels", channels, 1)
