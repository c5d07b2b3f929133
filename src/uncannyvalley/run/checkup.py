"""A short look at a model on some images: the facts of the split, a trial attack, and every doubt."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from uncannyvalley.analysis.diagnostics import Diagnostic, diagnose_trajectory
from uncannyvalley.analysis.smoothness import diagnose
from uncannyvalley.attacks import noise, pgd
from uncannyvalley.derivatives.costs import LayerCost, predict_costs
from uncannyvalley.derivatives.passes import called_layers, check_ownership
from uncannyvalley.derivatives.sites import find_site
from uncannyvalley.errors import InputError
from uncannyvalley.recording import record
from uncannyvalley.run.request import Request, load_images, load_model

TRIAL_STEPS = 10


@dataclass(frozen=True)
class CheckUp:
    """Facts by name, diagnostics, fired or not, and what curvature would cost layer by layer."""

    facts: Mapping[str, Any]
    diagnostics: Sequence[Diagnostic]
    costs: Sequence[LayerCost] = ()

    def to_dict(self) -> dict[str, Any]:
        costs = {"costs": [asdict(one) for one in self.costs]} if self.costs else {}
        return {"facts": dict(self.facts), "diagnostics": [asdict(one) for one in self.diagnostics], **costs}


def check_up(request: Request, order: int | None = None) -> CheckUp:
    """Split, prove, and walk ten PGD steps of eps/4 in the ball of ``request`` (8/255 by default).

    ``order`` 2 or 3 also predicts what the curvature of each layer would cost. Raises InputError where the model or the data cannot be used at all.
    """
    images = load_images(request)
    model, fingerprint = load_model(request, images)
    x, y = images[:], images.labels
    settings: dict[str, Any] = {
        "norm": request.ball_norm,
        "eps": request.ball_eps,
        "step_size": request.ball_eps / 4,
    }
    started = time.perf_counter()
    trial = record(model, x, y, pgd(**settings), steps=TRIAL_STEPS)
    seconds = time.perf_counter() - started
    aimless = record(model, x, y, noise(**settings), steps=TRIAL_STEPS)
    low, high = model.head.log_geometry_band
    clean, last = trial.column("adversarial")[:, 0], trial.column("adversarial")[:, -1]
    facts = {
        "images": f"{len(images)} of shape {tuple(images.pixels.shape[1:])}",
        "classes": model.classes,
        "head": model.head_name or "the model itself",
        "features": model.head.weight.shape[1],
        "weights": f"SHA-256 {fingerprint[:16]}…",
        "prepared copy": "; ".join(model.notes) or "none",
        "device": f"{model.device}, {str(model.dtype).removeprefix('torch.')}",
        "accuracy on these images": f"{1 - clean.mean():.1%}",
        f"accuracy after {TRIAL_STEPS} PGD steps, eps {request.ball_eps:.3g}": f"{1 - last.mean():.1%}",
        "log geometry band of the head": f"{low:.2f} to {high:.2f} ({high - low:.2f} nats wide)",
        "milliseconds for an image and step": f"{1000 * seconds / (len(images) * (TRIAL_STEPS + 1)):.2f}",
    }
    doubts = [*diagnose_trajectory(trial, {"noise": aimless}), *diagnose(model, x, y)]
    if order is None:
        return CheckUp(facts, doubts)
    if order not in (2, 3):
        raise InputError(f"order must be 2 or 3, got {order}")
    sites = [find_site(model, name) for name in called_layers(model)]
    check_ownership(model, sites)
    return CheckUp(facts, doubts, list(predict_costs(model, sites, x, y, order)))
