"""PGD towards what the network says of a clean image of another class: a look that no detector has reason to doubt."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.attacks.gradient import gradient_walk
from uncannyvalley.checks import check_images
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.types import Attack, PerExample, Probe

MATCHED = ("logits", "features")

_TINY = 1e-12
"""Below any squared distance that a walk in float32 reaches."""


@dataclass(frozen=True)
class Guides:
    """What the network says of clean images that the detector lets pass."""

    features: Float[Tensor, "m d"]
    logits: Float[Tensor, "m k"]

    @classmethod
    def of(cls, detector: ImageDetector, x: object) -> "Guides":
        """From clean images, of which those that are flagged are left out.

        Raises InputError unless the rest are of two predicted classes at least: each image is led to another class.
        """
        given = check_images(x)
        images = given[torch.tensor(detector.predict(given) > 0)]
        model = detector.model
        with torch.no_grad():
            parts = [model.features(model.place(part)) for part in images.split(detector.batch_size)]
        features = torch.cat(parts) if parts else torch.zeros(0, model.head.weight.shape[1])
        logits = model.head.logits(features.to(model.device))
        if len(logits.argmax(dim=1).unique()) < 2:
            raise InputError(
                "guides must hold clean images of at least two predicted classes that the detector does not flag; "
                f"of the {len(given)} given there are {len(logits)} unflagged ones; give more"
            )
        return cls(features, logits)

    def nearest(
        self, detector: ImageDetector, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], matched: str, rank: int
    ) -> Float[Tensor, "n d"]:
        """For each image the ``matched`` quantity of the guide of another class that is ``rank``-th nearest in it."""
        model = detector.model
        with torch.no_grad():
            features = model.features(model.place(x))
            here = features if matched == "features" else model.head.logits(features)
        there = getattr(self, matched)
        away = torch.cdist(here.double(), there.double())
        same = self.logits.argmax(dim=1)[None] == y.to(away.device)[:, None]
        order = away.masked_fill(same, torch.inf).argsort(dim=1)
        others = (~same).sum(dim=1)
        return there[order[torch.arange(len(x), device=away.device), rank % others]]


def imitation(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float,
    matched: str,
    wanted: Float[Tensor, "n d"],
    random_start: bool = False,
) -> Attack:
    """PGD down log |f(x) − wanted|², f the logits or the features (Sabour et al. 2016, arXiv 1511.05122).

    ``wanted`` has one row for each image of the batch that is walked. Cost of a step: a forward and a backward.
    Raises InputError for another ``matched`` than logits or features, and as ``pgd`` does.
    """
    if matched not in MATCHED:
        raise unknown_name("quantity to match", matched, MATCHED)
    settings = {"norm": norm, "eps": eps, "step_size": step_size, "random_start": random_start}
    objective = _distance(matched, wanted.detach())
    return gradient_walk(f"{matched} matching", objective=objective, ascend=False, settings=settings)


def _distance(matched: str, wanted: Tensor) -> PerExample:
    def log_distance(probe: Probe) -> Float[Tensor, "n"]:
        apart = getattr(probe, matched).double() - wanted.to(probe.logits.device)[probe.owner].double()
        return apart.square().sum(dim=1).clamp(min=_TINY).log()

    return log_distance
