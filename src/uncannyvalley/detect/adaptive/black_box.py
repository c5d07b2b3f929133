"""Attackers who only ask: a network whose one way to be wrong is to be wrong unnoticed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uncannyvalley import adversaries
from uncannyvalley.detect.adaptive.attacker import BLACK_BOX, probe_of, suspicion_of
from uncannyvalley.detect.adaptive.best import Best
from uncannyvalley.detect.image_detector import ImageDetector

ROUNDING = 1e-6
"""By which a query may leave the ball."""


class Guarded(nn.Module):
    """Network and detector as one classifier of images of the class ``label``.

    Its logits are the network's, but that of the label is raised to max(z_label, max_{s≠label} z_s + suspicion − threshold).
    So an image of that class is misclassified here exactly where it is misclassified *and* not flagged, and the margin
    says how much of the two is still missing: any attack on classifiers becomes one on the guarded network.

    ``best`` keeps, for each of the clean images of that class, the best query seen in its ball.
    """

    def __init__(
        self,
        detector: ImageDetector,
        label: int,
        clean: Float[Tensor, "n ..."],
        eps: float,
        norm: str = "linf",
    ) -> None:
        super().__init__()
        self.detector, self.label, self.eps, self.norm = detector, label, eps, norm
        self._clean = detector.model.place(clean)
        self.best = Best(self._clean, detector.threshold)
        self.eval()

    def forward(self, x: Float[Tensor, "m ..."]) -> Float[Tensor, "m k"]:
        """Logits of the guarded network, float32."""
        with torch.no_grad():
            probe = probe_of(self.detector.model, self.detector.model.place(x))
            logits = probe.logits.double()
            others = logits.clone()
            others[:, self.label] = -torch.inf
            ahead = others.amax(dim=1)
            suspicion = suspicion_of(self.detector, probe, torch.arange(len(x), device=probe.x.device))
            wrong = logits[:, self.label] < ahead
            self._remember(probe.x, wrong, suspicion)
            raised = ahead + suspicion - self.detector.threshold
            logits[:, self.label] = torch.maximum(logits[:, self.label], raised)
            return logits.float().to(x.device)

    def _remember(self, x: Tensor, wrong: Bool[Tensor, "m"], suspicion: Float[Tensor, "m"]) -> None:
        """Which image a query belongs to is not told: the nearest is asked, and whatever lies in its ball counts for it."""
        rows = wrong.nonzero().flatten()
        if not len(rows):
            return
        order = 2.0 if self.norm == "l2" else torch.inf
        away = torch.cdist(x[rows].flatten(1).double(), self._clean.flatten(1).double(), p=order)
        nearest, owner = away.min(dim=1)
        for i in (nearest <= self.eps + ROUNDING).nonzero().flatten().tolist():
            one = rows[i : i + 1]
            self.best.see(owner[i : i + 1], x[one], wrong[one], suspicion[one])


@dataclass(frozen=True)
class BlackBox:
    """Square (Andriushchenko et al. 2020) on the guarded network: ``steps`` queries of network and detector an image.

    Images of one class are attacked together. Raises InputError where the library is missing, or cannot attack such inputs.
    """

    detector: ImageDetector
    eps: float
    steps: int
    norm: str = "linf"
    restarts: int = 1
    sees: str = BLACK_BOX

    def harder(self, *, steps: int = 1, restarts: int = 0) -> "BlackBox":
        return replace(self, steps=self.steps * steps, restarts=self.restarts + restarts)

    def __call__(self, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], ids: Sequence[int], seed: int) -> Best:
        model = self.detector.model
        x, y = model.place(x), y.to(model.device)
        attack = adversaries.square(self.norm, eps=self.eps, queries=self.steps, restarts=self.restarts)
        best = Best(x, self.detector.threshold)
        for label in y.unique().tolist():
            rows = (y == label).nonzero().flatten()
            guarded = Guarded(self.detector, label, x[rows], self.eps, self.norm)
            found = attack.run(guarded, x[rows], y[rows], seed)
            guarded(found.images)  # the library's own last word is judged like every query
            best.take(rows, guarded.best)
        return best
