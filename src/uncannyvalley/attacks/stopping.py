"""When an attack has what it wants: the label is wrong (or the target reached) by a margin."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.checks import is_number
from uncannyvalley.errors import InputError
from uncannyvalley.types import Probe


def fooled(probe: Probe, *, targeted: bool, by: float = 0.0) -> Bool[Tensor, "n"]:
    """Rows whose prediction is wrong (the target, where ``targeted``) by at least ``by`` nats."""
    reached = probe.predicted == probe.target if targeted else probe.predicted != probe.y
    return reached & (objectives.shortfall(probe, targeted=targeted) <= -by)


def check_finite(name: str, value: object, *, least: float = 0.0) -> float:
    """``value`` as a finite number of at least ``least``; InputError otherwise."""
    if not is_number(value):
        raise InputError(f"{name} is a finite number, got {value!r}")
    if value < least:
        raise InputError(f"{name} must be at least {least:g}, got {value!r}")
    return float(value)


def stop_settings(stop: float | None) -> dict[str, Any]:
    """``stop`` for an attack's settings: only where it is set, so that other runs keep their keys."""
    return {} if stop is None else {"stop": check_finite("stop", stop)}


def stop_when_fooled(
    stop: float | None, targeted: bool, and_also: Callable[[Probe, Any], Tensor] | None = None
) -> Callable[[Probe, Any], Tensor] | None:
    """Stops rows once they are fooled by ``stop`` nats, and where given ``and_also`` holds; None for no stop."""
    if stop is None:
        return None

    def stops(probe: Probe, state: Any) -> Tensor:
        done = fooled(probe, targeted=targeted, by=stop)
        return done if and_also is None else torch.logical_and(done, and_also(probe, state))

    return stops
