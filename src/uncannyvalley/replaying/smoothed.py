"""A head fitted to kept clean features with smoothed labels: what a less sure training of the last layer would have given."""

import numpy as np
import torch

from uncannyvalley.errors import InputError
from uncannyvalley.head import Head

SMOOTHING = 0.1
DECAY = 1e-4
"""Weight decay per mean squared feature norm, so that a fit does not depend on the features' scale."""

LEAST_OF_A_CLASS = 5
MOST_ITERATIONS = 2000
TOLERANCE = 1e-6
"""Largest entry of the gradient at the minimum, in units in which the features have mean square 1."""


def smoothed_head(features: np.ndarray, labels: np.ndarray, classes: int) -> Head:
    """The head that minimises the mean cross-entropy to smoothed labels on features (n, d) with labels (n,), float64.

    min over W, b of mean_i Σ_s t_is (−log softmax_s(W φ_i + b)) + DECAY/2 · mean|φ|² · |W|_F², t_i = (1 − ε) e_{y_i} + ε/k with
    ε = 0.1: convex, and by the decay (DECAY = 1e-4) it has one minimum in W; L-BFGS from 0. b has no decay, and sums to 0 by its start.
    Source: Szegedy et al. 2016, arXiv 1512.00567, for the labels. Raises InputError where a class has fewer than five images,
    features are not finite or all 0, or where the search does not end.
    """
    _check(features, labels, classes)
    scale = float(np.sqrt(np.mean(np.square(features).sum(axis=1))))
    unit = torch.from_numpy(features / scale)
    wanted = torch.full((len(labels), classes), SMOOTHING / classes, dtype=torch.float64)
    wanted[torch.arange(len(labels)), torch.from_numpy(labels)] += 1 - SMOOTHING
    found = _minimum(unit, wanted)
    return Head(found[:, :-1] / scale, found[:, -1].clone())


def _check(features: np.ndarray, labels: np.ndarray, classes: int) -> None:
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < LEAST_OF_A_CLASS:
        fewest = int(counts.argmin())
        raise InputError(
            f"a smoothed head is fitted to the clean features of the run and needs at least {LEAST_OF_A_CLASS} images of each of "
            f"the {classes} classes; class {fewest} has {counts[fewest]}. Record more images (--limit)"
        )
    if not (np.isfinite(features).all() and features.any()):
        raise InputError(
            "the kept features hold NaN or infinite values, or are all 0; no head can be fitted to them"
        )


def _minimum(features: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """W beside b, (k, d + 1), at the minimum for features of mean square 1."""
    from scipy.optimize import minimize

    shape = (wanted.shape[1], features.shape[1] + 1)

    def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        both = torch.from_numpy(flat).reshape(shape)
        weight, bias = both[:, :-1], both[:, -1]
        log_p = torch.log_softmax(features @ weight.T + bias, dim=1)
        pull = (log_p.exp() - wanted) / len(wanted)
        value = -(wanted * log_p).sum() / len(wanted) + DECAY / 2 * weight.square().sum()
        slope = torch.cat([pull.T @ features + DECAY * weight, pull.sum(dim=0)[:, None]], dim=1)
        return value.item(), slope.flatten().numpy()

    options = {
        "maxiter": MOST_ITERATIONS,
        "maxfun": 2 * MOST_ITERATIONS,
        "gtol": TOLERANCE,
        "ftol": 0.0,
        "maxcor": 30,
    }
    found = minimize(
        value_and_slope, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options=options
    )
    steepest = float(np.abs(found.jac).max())
    if not steepest <= 10 * TOLERANCE:
        raise InputError(
            f"the smoothed head was not found in {MOST_ITERATIONS} steps (largest slope {steepest:.1g}); its features may be "
            "badly scaled: replay with a head of your own (--head FILE.safetensors)"
        )
    return torch.from_numpy(found.x).reshape(shape)
