"""Certified radii: how far an input may move before its label can change."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley.checks import check_count, check_logits
from uncannyvalley.errors import InputError
from uncannyvalley.head import Head
from uncannyvalley.splitting import SplitModel, split_for
from uncannyvalley.theory.bound import Bound
from uncannyvalley.theory.lipschitz import Lipschitz, as_exact, lipschitz_bound
from uncannyvalley.theory.operator_norm import matrix_norm

_BATCH = 64


def flip_distance(logits: Float[Tensor, "n k"], head: Head) -> Float[Tensor, "n"]:
    """min_{s≠t} (z_t − z_s)/|w_t − w_s|: the exact distance of φ to the decision boundary, in feature units.

    t is the most probable class, the first of equals. Classes with the same row of W never meet: their
    term is infinite where z_t > z_s and 0 where the two are tied.
    """
    if logits.dim() != 2 or logits.shape[1] != head.classes:
        raise InputError(f"logits must have shape (n, {head.classes}), got {tuple(logits.shape)}")
    exact = logits.detach().to(head.weight.device, torch.float64)
    highest, top = exact.max(dim=1)
    nearest = torch.full_like(highest, torch.inf)
    chosen = head.weight[top].double()
    for which, rows in head.row_chunks():
        if head.is_pairwise:
            lengths = head.squared_distances[top][:, which].sqrt()
        else:
            lengths = torch.cdist(chosen, rows, compute_mode="donot_use_mm_for_euclid_dist")
        gaps = highest[:, None] - exact[:, which]
        terms = torch.where(lengths > 0, gaps / lengths, torch.where(gaps > 0, torch.inf, 0.0))
        others = torch.arange(head.classes, device=top.device)[which] != top[:, None]
        nearest = torch.minimum(nearest, terms.where(others, torch.inf).amin(dim=1))
    return nearest


def tsuzuku_radius(
    logits: Float[Tensor, "n k"], head: Head, lipschitz: Lipschitz | float
) -> Float[Tensor, "n"]:
    """(z_t − max_{s≠t} z_s)/(√2 |W| L), |W| the operator norm (Tsuzuku, Sato and Sugiyama 2018).

    Never above flip_distance/L, because |w_t − w_s| ≤ √2 |W|. ``lipschitz`` is that of the features.
    """
    constant = lipschitz.value if isinstance(lipschitz, Lipschitz) else float(lipschitz)
    two = logits.detach().double().topk(2, dim=1).values
    return _radius(two[:, 0] - two[:, 1], math.sqrt(2) * matrix_norm(head.weight) * constant)


def _radius(distance: Float[Tensor, "n"], constant: float) -> Float[Tensor, "n"]:
    """distance/L; infinite where φ never moves, but 0 on the boundary."""
    if constant < 0 or math.isnan(constant):
        raise InputError(f"a Lipschitz constant is at least 0, got {constant}")
    if constant == 0:
        return torch.where(distance > 0, torch.inf, torch.zeros_like(distance))
    return distance / constant


def certify(
    net: nn.Module | SplitModel,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    *,
    lipschitz: Lipschitz | None = None,
    batch_size: int | None = None,
) -> Bound:
    """Radii in L2 input units inside which no change of x changes the label: flip distance over L.

    value is 0 where x is misclassified or on the boundary. Without ``lipschitz`` the certified global
    bound of ``lipschitz_bound`` is used; the status is that of the constant.

    Raises InputError for unusable images, labels or networks, and for operations without a rule.

    Example
    -------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> certify(net, torch.rand(2, 1, 2, 2), torch.tensor([0, 1])).side
    'lower'
    """
    model, x, y = split_for(net, x, y, prepare=False)
    size = _BATCH if batch_size is None else check_count("batch_size", batch_size, 1)
    if lipschitz is None:
        lipschitz = lipschitz_bound(model)
    exact = as_exact(model)
    radii = []
    for images, labels in zip(x.split(size), y.split(size), strict=True):
        with torch.no_grad():
            logits = exact(exact.place(images))
        check_logits(logits)
        correct = logits.argmax(dim=1) == labels.to(logits.device)
        radius = _radius(flip_distance(logits, exact.head), lipschitz.value)
        radii.append(radius.where(correct, 0.0))
    assumptions = (
        "distances are L2 over all pixels, which may also leave [0, 1]; 0 where the label is wrong already",
        "the logits are computed in float64 and taken as exact; a float32 network may differ within its rounding",
        *lipschitz.assumptions,
    )
    return Bound(torch.cat(radii).cpu(), "lower", lipschitz.status, assumptions)
