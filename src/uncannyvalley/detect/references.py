"""Columns that compare an image's features with those of clean images: they are fitted before they are read."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from uncannyvalley.splitting import SplitModel
from uncannyvalley.types import Probe

NEIGHBOURS = 20
"""Of the local dimension, as published for batches of 100."""

KEPT_ROWS = 2000
"""Clean features that the local dimension is measured against."""

SAME = 1e-5
"""Distance over norm up to which features are one image's: they differ by 1e-7 between batch sizes."""

FEWEST_OF_CLASS = 10
"""Clean images of a class below which it has no mean of its own."""


@runtime_checkable
class Reference(Protocol):
    """A column with a memory of clean features."""

    def fit(self, features: Float[Tensor, "n d"], classes: Int[Tensor, "n"]) -> None: ...
    def __call__(self, probe: Probe) -> Tensor: ...
    def arrays(self) -> dict[str, Tensor]: ...
    def restore(self, arrays: dict[str, Tensor], width: int) -> None: ...


class Mahalanobis:
    """log min_c (φ − μ_c)ᵀ Σ⁻¹ (φ − μ_c): Lee et al. 2018, arXiv 1807.03888.

    μ_c are means of the predicted classes, Σ the covariance around them. Classes of fewer than ``FEWEST_OF_CLASS`` clean
    images are left out; if all are, one mean serves all.
    """

    def fit(self, features: Float[Tensor, "n d"], classes: Int[Tensor, "n"]) -> None:
        features = features.double()
        apart, means = [], []
        for which in classes.unique().tolist():
            rows = features[classes == which]
            if len(rows) >= FEWEST_OF_CLASS:
                means.append(rows.mean(dim=0))
                apart.append(rows - means[-1])
        if not means:
            means, apart = [features.mean(dim=0)], [features - features.mean(dim=0)]
        self.means = torch.stack(means)
        covariance = ledoit_wolf(torch.cat(apart).numpy(), assume_centered=True)[0]
        self.precision = torch.tensor(np.linalg.pinv(covariance, hermitian=True))

    def __call__(self, probe: Probe) -> Float[Tensor, "n"]:
        apart = probe.features.double()[:, None] - self.means.to(probe.features.device)
        squares = ((apart @ self.precision.to(apart)) * apart).sum(dim=2)
        return squares.amin(dim=1).clamp(min=1e-30).log()

    def arrays(self) -> dict[str, Tensor]:
        return {"means": self.means, "precision": self.precision}

    def restore(self, arrays: dict[str, Tensor], width: int) -> None:
        self.means = check_rows("means", arrays["means"], 1, width)
        self.precision = check_rows("precision", arrays["precision"], width, width)


class LocalDimension:
    """log of the local intrinsic dimension of φ among clean features, −(mean log r_i/r_k)⁻¹ (Ma et al. 2018, arXiv 1801.02613).

    r_1 … r_k are the distances to the nearest clean features; that of an image to itself does not count.
    """

    def fit(self, features: Float[Tensor, "n d"], classes: Int[Tensor, "n"]) -> None:
        step = max(1, -(-len(features) // KEPT_ROWS))
        self.kept = features[::step].double()

    def __call__(self, probe: Probe) -> Float[Tensor, "n"]:
        features = probe.features.double()
        away = torch.cdist(features, self.kept.to(features), compute_mode="donot_use_mm_for_euclid_dist")
        itself = away <= SAME * features.norm(dim=1, keepdim=True)
        away = torch.where(itself, torch.inf, away)
        nearest = away.topk(min(NEIGHBOURS, len(self.kept) - 1), dim=1, largest=False).values
        ratios = (nearest / nearest[:, -1:]).log()[:, :-1]  # NaN where all kept features are the image's own
        return -(-ratios.nan_to_num(0.0).mean(dim=1)).clamp(min=1e-12).log()

    def arrays(self) -> dict[str, Tensor]:
        return {"kept": self.kept}

    def restore(self, arrays: dict[str, Tensor], width: int) -> None:
        self.kept = check_rows("kept", arrays["kept"], 2, width)


def fit_references(
    references: Iterable[Reference], model: SplitModel, x: Float[Tensor, "n ..."], batch_size: int
) -> None:
    """Fit columns to the features of clean images; one forward an image, none where there is nothing to fit."""
    wanted = list(references)
    if not wanted:
        return
    with torch.no_grad():
        features = torch.cat([model.features(model.place(part)) for part in x.split(batch_size)])
        classes = model.head.logits(features).argmax(dim=1)
    for one in wanted:
        one.fit(features.cpu(), classes.cpu())


def check_rows(name: str, rows: Tensor, least: int, width: int) -> Tensor:
    """``rows`` as finite float64 (``least`` or more, width); ValueError for anything else, as a damaged file may hold."""
    fits = rows.dim() == 2 and rows.shape[0] >= least and rows.shape[1] == width
    if not fits or rows.dtype != torch.float64 or not bool(rows.isfinite().all()):
        raise ValueError(
            f"{name} must be finite float64 ({least} or more, {width}), got {rows.dtype} {tuple(rows.shape)}"
        )
    return rows


REFERENCES: dict[str, type[Mahalanobis] | type[LocalDimension]] = {
    "log_mahalanobis": Mahalanobis,
    "log_local_dimension": LocalDimension,
}
