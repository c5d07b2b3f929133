"""Is the loss smooth where its gradient says so? Needs the model, and few forwards.

Along the sign of the gradient a step of length h (in pixels) changes a smooth log loss by h · |gradient|_1.
Rounding, thresholds and JPEG front ends do not follow, whatever gradient they claim.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley import objectives
from uncannyvalley.analysis.diagnostics import Diagnostic
from uncannyvalley.checks import check_images, check_labels
from uncannyvalley.probe import Prober
from uncannyvalley.splitting import SplitModel, split
from uncannyvalley.types import LOG_LOSS_GRAD

IMAGES = 16

STEPS = {torch.float64: (1e-6, 1e-5, 1e-4), torch.float32: (1e-4, 1e-3)}
"""Lengths to try, in pixels: long enough for the number type, short beside the kinks of a ReLU network."""


def diagnose(
    model: nn.Module | SplitModel, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"]
) -> list[Diagnostic]:
    """The doubts that need the model, from up to 16 images: whether its loss is smooth.

    In float64 where the network runs in it. Raises InputError for input that cannot be used.
    """
    x = check_images(x)[:IMAGES]
    model = split(model, x) if isinstance(model, nn.Module) else model
    y = check_labels(y[:IMAGES], len(x), model.classes)
    try:
        share = rough_share(model.in_double(), x, y)
    except RuntimeError:  # the network fixes its own number type
        share = rough_share(model, x, y)
    return [
        Diagnostic(
            "loss not smooth", share, 0.5, share > 0.5,
            "Share of images where a tiny step along the gradient changes the loss by something else than the gradient says. "
            "The loss has steps (rounding, thresholds, JPEG): sharpness describes the smooth stand-in, not the model.",
        )
    ]  # fmt: skip


def rough_share(model: SplitModel, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"]) -> float:
    """Share of images whose change of log loss differs from the gradient's by more than half, at every length."""
    prober = Prober(model, x, y)
    here = prober(prober.clean, {LOG_LOSS_GRAD})
    gradient = here.log_loss_grad
    assert gradient is not None  # it was asked for
    slope = gradient.abs().flatten(1).sum(dim=1).double()
    agrees = torch.zeros_like(slope, dtype=torch.bool)
    for length in STEPS.get(model.dtype, STEPS[torch.float32]):
        moved = prober(prober.clean + length * gradient.sign())
        ratio = (objectives.log_loss(moved) - objectives.log_loss(here)) / (length * slope)
        agrees |= (ratio - 1).abs() < 0.5
    return float((~agrees).double().mean())
