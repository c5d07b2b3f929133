"""A score that an attack keeps within limits, and how far a point lies from them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.attacks.stopping import check_finite
from uncannyvalley.errors import InputError
from uncannyvalley.measures import resolve
from uncannyvalley.types import Measure, PerExample, Probe

Score = str | Measure | PerExample
"""The name of a measure, a measure, or any differentiable function of a probe."""


def differentiable_score(score: Score, role: str = "score") -> PerExample:
    """The function that ``score`` names; InputError for what cannot be differentiated in the image."""
    if isinstance(score, str):
        (score,) = resolve([score])
    if not callable(score):
        raise InputError(
            f"{role} is the name of a measure or a function of a probe, got {type(score).__name__}"
        )
    if isinstance(score, Measure) and score.needs:
        raise InputError(
            f"{role} {score.name!r} reads a gradient in the image and so would need second derivatives there; choose a "
            "measure of the head, or layer_sharpness of an inner layer"
        )
    return score


def named(score: PerExample, role: str = "score") -> dict[str, Any]:
    """``score`` in an attack's settings: a measure by its name and version, a function by its qualified name."""
    if isinstance(score, Measure):
        return {role: score.name, f"{role}_version": score.version}
    function = score.func if isinstance(score, partial) else score
    home = function if hasattr(function, "__qualname__") else type(function)
    return {role: f"{home.__module__}.{home.__qualname__}"}


def watched(probe: Probe, score: PerExample) -> Float[Tensor, "n"]:
    """The constraint's value: from the probe where the attack asked for it, else computed."""
    if probe.constraint is not None:
        return probe.constraint.double()
    with torch.no_grad():
        return score(probe).double()


@dataclass(frozen=True)
class Band:
    """The band [low, high] of a score, in its own units; from that of the clean image where ``relative``."""

    score: PerExample
    low: float
    high: float
    relative: bool

    @classmethod
    def of(cls, score: Score, low: float, high: float, relative: bool) -> "Band":
        """The band, checked."""
        low, high = (
            check_finite(name, value, least=-float("inf")) for name, value in (("low", low), ("high", high))
        )
        if low >= high:
            raise InputError(f"the band is empty: low={low:g} must lie below high={high:g}")
        return cls(differentiable_score(score), low, high, bool(relative))

    @property
    def settings(self) -> dict[str, Any]:
        return named(self.score) | {"low": self.low, "high": self.high, "relative": self.relative}

    def reference(self, clean: Probe) -> Float[Tensor, "n"]:
        """What the band is counted from: the clean image's score, or 0."""
        value = watched(clean, self.score)
        return value if self.relative else torch.zeros_like(value)

    def from_centre(self, probe: Probe, reference: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Score − centre of the band."""
        return watched(probe, self.score) - reference - (self.low + self.high) / 2

    def side(self, from_centre: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """−1 below the band, 0 inside, 1 above; NaN counts as inside: there is no way back to follow."""
        outside = from_centre.abs() > (self.high - self.low) / 2
        return torch.where(outside, from_centre.sign(), 0.0)
