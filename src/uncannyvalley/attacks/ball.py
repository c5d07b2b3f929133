"""The ball an attack may move in, and the steepest step of a given length in its norm."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.types import Draws, Probe

NORMS = ("linf", "l2")


def check_ball(norm: str, eps: float, step_size: float) -> None:
    """Raise InputError unless norm, radius and step can make a walk."""
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    for name, value in (("eps", eps), ("step_size", step_size)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"{name} is a number in units of the input's range [0, 1], got {value!r}")
        if not (math.isfinite(value) and value > 0):
            raise InputError(
                f"{name} must be a finite number above 0, in units of the input's range [0, 1]; "
                f"got {value!r}. A common choice is {name}={'8/255' if name == 'eps' else '2/255'}"
            )


def per_row(values: Shaped[Tensor, "n"], like: Tensor) -> Tensor:
    """One number a row, shaped to multiply images."""
    return values.view(-1, *[1] * (like.dim() - 1))


def steepest(gradient: Float[Tensor, "n ..."], norm: str) -> Float[Tensor, "n ..."]:
    """The unit step of largest ⟨gradient, step⟩: its sign (linf) or its direction (l2).

    Rows without any gradient stay where they are.
    """
    if norm == "linf":
        return gradient.sign()
    length = gradient.flatten(1).norm(dim=1)
    return gradient / per_row(torch.where(length > 0, length, 1.0), gradient)


def project(
    x: Float[Tensor, "n ..."], clean: Float[Tensor, "n ..."], eps: float, norm: str
) -> Float[Tensor, "n ..."]:
    """The nearest point of the ball around ``clean``, then of the box [0, 1].

    The box holds the clean point, so clipping to it brings no coordinate further away.
    """
    if norm == "linf":
        return torch.clamp(x, clean - eps, clean + eps).clamp_(0, 1)
    moved = x - clean
    length = moved.flatten(1).norm(dim=1)
    shrink = (eps / length.clamp(min=torch.finfo(x.dtype).tiny)).clamp(max=1)
    return (clean + moved * per_row(shrink, x)).clamp_(0, 1)


def random_point(probe: Probe, draws: Draws, eps: float, norm: str) -> Float[Tensor, "n ..."]:
    """A uniform draw from the ball around the probe's clean point, clipped to [0, 1]."""
    return random_in_ball(probe.clean, draws, eps, norm)


def random_in_ball(
    clean: Float[Tensor, "n ..."], draws: Draws, eps: float, norm: str
) -> Float[Tensor, "n ..."]:
    """A uniform draw from the ball around each image, clipped to [0, 1]."""
    shape = clean.shape[1:]
    if norm == "linf":
        moved = eps * (2 * draws.uniform(shape).to(clean) - 1)
        return (clean + moved).clamp_(0, 1)
    direction = steepest(draws.normal(shape).to(clean), "l2")
    radius = draws.uniform(torch.Size([1])).to(clean).flatten() ** (1 / shape.numel())
    return (clean + eps * per_row(radius, clean) * direction).clamp_(0, 1)
