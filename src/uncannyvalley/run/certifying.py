"""Certificates of a model on some images, with what was only estimated kept apart, and an attack to hold them against."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uncannyvalley.errors import InputError
from uncannyvalley.run.request import Request, load_images, load_model
from uncannyvalley.theory.attacked import RADII, attacked_radius
from uncannyvalley.theory.bound import Bound
from uncannyvalley.theory.certificate import certify, tsuzuku_radius
from uncannyvalley.theory.lipschitz import Lipschitz, lipschitz_bound, sampled_lipschitz

QUANTILES = (0.1, 0.5, 0.9)
SAMPLED_IMAGES = 32


@dataclass(frozen=True)
class Certificates:
    """Radii in L2 pixels, one an image.

    certified   flip distance over the certified L; a lower bound. None where no certificate was asked for
    tsuzuku     the margin certificate of Tsuzuku et al. 2018 with the same L; never above ``certified``; or None
    estimated   flip distance over the sampled L: no bound at all
    attacked    smallest distance at which PGD flipped the label; an upper bound, None where not asked for
    """

    certified: Bound | None
    tsuzuku: Bound | None
    estimated: Bound
    attacked: Bound | None
    constants: tuple[Lipschitz | None, Lipschitz]
    correct: Tensor

    def rows(self) -> list[tuple[str, str, Bound]]:
        """(what, status, bound) in the order of tables and figures."""
        found = [
            ("flip distance / L", "certified", self.certified),
            ("margin (Tsuzuku 2018)", "certified", self.tsuzuku),
            ("flip distance / sampled L", "estimated, no promise", self.estimated),
            ("flipped by PGD", "found", self.attacked),
        ]
        return [(what, status, bound) for what, status, bound in found if bound is not None]

    @property
    def violations(self) -> int | None:
        """Images flipped inside their certified radius: 0, or the certificate is wrong."""
        if self.attacked is None or self.certified is None:
            return None
        inside = (self.attacked.value < self.certified.value) & (self.certified.value > 0)
        return int(inside.sum())

    def ratio(self) -> float | None:
        """Median over correct images of certified / attacked radius."""
        if self.attacked is None or self.certified is None or not bool(self.correct.any()):
            return None
        return float((self.certified.value / self.attacked.value)[self.correct].median())

    def to_dict(self) -> dict[str, Any]:
        certified, sampled = self.constants
        return {
            "images": len(self.correct), "correct": int(self.correct.sum()),
            "certified_above_zero": None if self.certified is None else int((self.certified.value > 0).sum()),
            "lipschitz": {
                "certified": certified and certified.value, "sampled": sampled.value,
                "factors": list(certified.factors) if certified else [],
            },
            "radii": [
                {"radius": what, "status": status, **_quantiles(bound, self.correct)} for what, status, bound in self.rows()
            ],
            "violations": self.violations, "median_certified_over_attacked": self.ratio(),
            "assumptions": list((self.certified or self.estimated).assumptions),
        }  # fmt: skip


def _quantiles(bound: Bound, correct: Tensor) -> dict[str, float | None]:
    values = bound.value[correct]
    if len(values) == 0:
        return {f"q{int(100 * q)}": None for q in QUANTILES}
    found = values.quantile(torch.tensor(QUANTILES, dtype=torch.float64), interpolation="nearest").tolist()
    return {
        f"q{int(100 * q)}": value if value != float("inf") else None
        for q, value in zip(QUANTILES, found, strict=True)
    }


def certify_images(
    request: Request,
    *,
    certificate: bool = True,
    attack: bool = True,
    steps: int = 40,
    progress: Callable[[str, int], Callable[[int], None]] | None = None,
) -> Certificates:
    """Certified and estimated radii of every image, and with ``attack`` the radius at which PGD flips it.

    Without ``certificate`` only the estimate, which networks with operations that have no rule can have.
    """
    images = load_images(request)
    model, _ = load_model(request, images)
    x, y = images[:], images.labels
    logits = model.logits_of(x)
    correct = logits.argmax(dim=1) == y
    if not bool(correct.any()):
        raise InputError(
            f"none of the {len(x)} images is classified correctly, so every radius is 0; check the order of the labels and "
            "the model's weights and normalisation"
        )
    constant = lipschitz_bound(model) if certificate else None
    sampled = sampled_lipschitz(model, x[:SAMPLED_IMAGES])
    certified = margin = None
    if constant is not None:
        certified = certify(model, x, y, lipschitz=constant)
        radius = tsuzuku_radius(logits, _on_cpu(model.head), constant).where(correct, 0.0)
        margin = Bound(radius, "lower", "certified", certified.assumptions)
    counter = progress("attack", RADII * len(x)) if progress and attack else None
    return Certificates(
        certified,
        margin,
        certify(model, x, y, lipschitz=sampled),
        attacked_radius(model, x, y, steps=steps, seed=request.seed, progress=counter) if attack else None,
        (constant, sampled),
        correct,
    )


def _on_cpu(head: Any) -> Any:
    return type(head)(head.weight.cpu(), None if head.bias is None else head.bias.cpu())
