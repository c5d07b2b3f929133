"""Rows of a probe made at random, and how every measure of them is held against the truth."""

from typing import NamedTuple

import numpy as np
import torch
from hypothesis import settings
from torch import Tensor

from oracles import ExactRow
from uncannyvalley import measures
from uncannyvalley.head import Head
from uncannyvalley.types import Probe

GAPS = (0.0, 1e-3, 0.1, 1.0, 10.0, 50.0, 100.0, 150.0, 200.0)
SOFTMAX_MEASURES = (
    "loss",
    "log_loss",
    "log_error_probability",
    "margin",
    "logit_gap",
    "confidence",
    "entropy",
    "log_entropy",
    "log_gini",
)
HEAD_MEASURES = (
    "feature_norm",
    "feature_gradient_norm",
    "log_feature_gradient_norm",
    "log_geometry",
    "log_relative_sharpness",
    "log_trace",
    "log_layer_relative_sharpness",
    "log_released_relative_sharpness",
    "log_top_eigenvalue",
)

quick = settings(max_examples=40, deadline=None, derandomize=True)


class Case(NamedTuple):
    """Rows of a probe: any logits go with any features, for the measures see both as given."""

    logits: Tensor
    features: Tensor
    weight: Tensor
    y: Tensor

    def probe(self, bias: Tensor | None = None) -> Probe:
        rows = len(self.logits)
        x = torch.zeros(rows, 1, dtype=self.features.dtype)
        head = Head(self.weight, bias)
        return Probe(x, x, self.y, None, torch.arange(rows), self.features, self.logits, head)

    def read(self, *names: str) -> dict[str, np.ndarray]:
        return measures.read(self.probe(), measures.resolve(names))

    def exact(self, row: int) -> ExactRow:
        return ExactRow(self.logits[row], self.features[row], self.weight, int(self.y[row]))


def random_case(
    classes: int,
    width: int,
    *,
    seed: int,
    gaps: tuple[float, ...] = GAPS,
    below: float = 10.0,
    dtype: torch.dtype = torch.float32,
) -> Case:
    """A row for each gap of the two largest logits; the others lie ½ to 1 times ``below`` under those."""
    draw = torch.Generator().manual_seed(seed)
    rows = len(gaps)
    depth = below * (1 + torch.rand(rows, classes, generator=draw)) / 2
    logits = 0.5 - torch.tensor(gaps)[:, None] - depth
    logits[:, 0], logits[:, 1] = 0.5, 0.5 - torch.tensor(gaps)
    return Case(
        logits[:, torch.randperm(classes, generator=draw)].to(dtype),
        torch.randn(rows, width, generator=draw).to(dtype),
        torch.randn(classes, width, generator=draw).to(dtype),
        torch.randint(classes, (rows,), generator=draw),
    )


def logits_of_features(rows: int, classes: int, width: int, seed: int, scale: float = 1.0) -> Case:
    """Logits that are Wφ, in float64."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, width, generator=draw, dtype=torch.float64)
    weight = scale * torch.randn(classes, width, generator=draw, dtype=torch.float64)
    return Case(features @ weight.T, features, weight, torch.randint(classes, (rows,), generator=draw))


def assert_equals_truth(case: Case, names: tuple[str, ...]) -> None:
    """Within 1e-4 of the 160-digit truth, in every row; −inf only where the truth is −inf."""
    found = case.read(*names)
    rows = [case.exact(row) for row in range(len(case.logits))]
    for name in names:
        truth = np.array([getattr(row, name)() for row in rows])
        np.testing.assert_allclose(found[name], truth, rtol=0, atol=1e-4, err_msg=name)
