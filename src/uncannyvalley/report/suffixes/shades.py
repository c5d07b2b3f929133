"""One scale of colours for log κ: even in lightness, the same to readers with any colour vision."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Cividis of Nuñez, Anderton and Renslow 2018, at nine even places.
STOPS = ("#00224e", "#1a386f", "#434e6c", "#61656f", "#7d7c78", "#9b9476", "#bcae6c", "#dec958", "#fee838")


@dataclass(frozen=True)
class Shade:
    """A background, and black or white ink, whichever is read more easily on it."""

    background: str
    ink: str


@dataclass(frozen=True)
class Scale:
    """Colours from ``low`` to ``high``; what lies beyond has the colour of the end."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Scale":
        """From the smallest finite value to the largest; from 0 to 1 where there is none."""
        finite = [one for one in values if math.isfinite(one)]
        return cls(min(finite), max(finite)) if finite else cls(0.0, 1.0)

    def shade(self, value: float) -> Shade | None:
        """The colour of a value, −inf among them; None for NaN."""
        if math.isnan(value):
            return None
        width = self.high - self.low
        place = 0.5 if width == 0 and math.isfinite(value) else _clipped((value - self.low) / (width or 1.0))
        return _shade_at(place)

    def legend(self, count: int = 9) -> list[Shade]:
        """Evenly spaced colours from low to high."""
        return [_shade_at(number / (count - 1)) for number in range(count)]


def _clipped(place: float) -> float:
    return min(1.0, max(0.0, place))


def _shade_at(place: float) -> Shade:
    below = min(int(place * (len(STOPS) - 1)), len(STOPS) - 2)
    share = place * (len(STOPS) - 1) - below
    channels = [
        round(low + share * (high - low))
        for low, high in zip(_channels(STOPS[below]), _channels(STOPS[below + 1]), strict=True)
    ]
    light = luminance(channels)
    ink = "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#ffffff"
    return Shade("#" + "".join(f"{one:02x}" for one in channels), ink)


def _channels(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def luminance(channels: Iterable[int]) -> float:
    """Relative luminance of an sRGB colour by WCAG 2, in [0, 1]."""
    parts = (one / 255 for one in channels)
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
