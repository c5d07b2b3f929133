"""How deep a valley a cosine head can have at all, from its rows alone and before any attack.

With unit features u the logits are z = W u, and κ = Var_p(w) depends on u alone. For a top class t write v_s = w_t − w_s,
D_s = |v_s| and r_s = p_s/p_t = exp(−⟨v_s, u⟩) ≤ 1 for s ≠ t, R = Σ r_s, G = Σ r_s D_s². Then

    κ = (G + Σ_{s<s'} r_s r_s' |w_s − w_s'|²) / (1 + R)².

How small G can be is a convex question, log G being a logsumexp of linear functions of u. By Gibbs and Cauchy-Schwarz, for
any weights λ_s ≥ 0 that sum to 1,

    log G ≥ Σ λ_s log D_s² + H(λ) − max_u ⟨Σ λ_s v_s, u⟩ = Σ λ_s log D_s² + H(λ) − |w_t − Σ λ_s w_s|,

with equality at the best λ: that is log G*. Every λ proves a bound, so the search for the best one proves nothing and needs
no proof. From it κ follows, with d_t = min D_s and d the least distance of any two rows:

- R ≤ 1: G ≥ G* and G ≥ d_t² R. Of max(G*, d_t² R)/(1 + R)² the left part falls and the right part rises with R; where
  they meet, at x = G*/d_t², both are d_t² x/(1 + x)². Where x ≥ 1 they do not meet, and the left part is ≥ d_t²/4.
- R ≥ 1: as r_s ≤ 1, Σ_{s<s'} r_s r_s' ≥ (R² − R)/2, so κ ≥ d² (R + (R² − R)/2)/(1 + R)² = d²/2 · R/(1 + R) ≥ d²/4. Also
  κ ≥ d_t² R/(1 + R)² ≥ d_t² (k − 1)/k², as R ≤ k − 1.

The valley floor of class t is therefore at least the smaller of the two; deep down, x → 0, nothing but terms of relative
size x was given away. After a ReLU u ≥ 0, and max_u ⟨a, u⟩ is |max(a, 0)| instead of |a|. For k = 2 the bound is attained:
κ = D² e^{−D}/(1 + e^{−D})².
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from uncannyvalley.checks import check_count
from uncannyvalley.errors import InputError
from uncannyvalley.head import Head
from uncannyvalley.measures.second import log_relative_sharpness
from uncannyvalley.splitting import SplitModel
from uncannyvalley.types import Probe
from uncannyvalley.zoo.heads import UnitFeatures, unit_rows

ROUNDING = 1e-9
"""Nats given away for float64 arithmetic."""

_EQUAL_LENGTHS = 1e-4
"""Largest relative difference of lengths that float32 rows of one length have."""

_LONGEST, _SHORTEST = 0.3, 1e-7
"""Steps on the unit sphere of the search for low points, from first to last."""


@dataclass(frozen=True)
class Floor:
    """The least log κ over unit features, for each class as the top class; float64.

    certified   nothing is lower: a proven bound for every φ (of non-negative features only, where that was asked)
    reached     the lowest that was found, so that the floor itself lies between the two; inf where no features with that
                top class were found
    directions  the unit features that reach it
    """

    certified: Float[Tensor, "k"]
    reached: Float[Tensor, "k"]
    directions: Float[Tensor, "k d"]


def valley_floor(
    head: Float[Tensor, "k d"] | Head | SplitModel,
    *,
    nonnegative: bool = False,
    restarts: int = 8,
    steps: int = 300,
    seed: int = 0,
) -> Floor:
    """The valley floor of a cosine head: W with rows of one length, or a split network whose features are unit.

    ``nonnegative`` says that no feature is below 0, as after a ReLU. ``restarts`` and ``steps`` are those of the search
    for low points, which starts at the bound's own direction, at w_t and at random points drawn from ``seed``.

    Raises InputError for a head with a bias, fewer than two classes or rows of different lengths, and for networks that
    do not normalise their features.
    """
    rows = _rows_of(head)
    check_count("restarts", restarts, 0)
    check_count("steps", steps, 1)
    log_g, guide = _least_log_g(rows, nonnegative)
    certified = _from_log_g(log_g, Head(rows, None).squared_distances)
    reached, directions = _search(rows, guide, nonnegative, restarts, steps, seed)
    return Floor(certified - ROUNDING, reached, directions)


def _rows_of(head: Tensor | Head | SplitModel) -> Float[Tensor, "k d"]:
    if isinstance(head, SplitModel):
        parent = head.plain.get_submodule(head.head_name.rpartition(".")[0])
        if not (isinstance(parent, nn.Sequential) and isinstance(parent[0], UnitFeatures)):
            raise InputError(
                "the network has no cosine head, and features of any length have no valley floor: κ falls as long as |φ| "
                "grows. Split plain_heads(net) of a network with a cosine head (uncannyvalley.zoo.heads)"
            )
        head = head.head
    if isinstance(head, Head):
        if head.bias is not None and bool(head.bias.any()):
            raise InputError(
                "a cosine head has no bias, this one has; the valley floor is that of z = W φ, |φ| = 1"
            )
        head = head.weight
    if not isinstance(head, Tensor) or head.dim() != 2 or len(head) < 2:
        shape = tuple(head.shape) if isinstance(head, Tensor) else type(head).__name__
        raise InputError(
            f"the head's weight is a tensor (classes, features) of at least 2 classes, got {shape}"
        )
    rows = head.detach().to("cpu", torch.float64)
    lengths = rows.norm(dim=1)
    low, high = lengths.min().item(), lengths.max().item()
    if not (math.isfinite(high) and high > 0 and high - low <= _EQUAL_LENGTHS * high):
        raise InputError(
            f"the rows of a cosine head have one length, these have lengths from {low:.4g} to {high:.4g}; give "
            "CosineHead.effective_weight, or the head of split(plain_heads(net), …)"
        )
    return rows


def _least_log_g(
    rows: Float[Tensor, "k d"], nonnegative: bool
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k d"]]:
    """The best proven bound of log G for each top class, and w_t − Σ λ_s w_s (its positive part) as a direction."""
    own = torch.eye(len(rows), dtype=torch.bool)
    log_squares = Head(rows, None).squared_distances.clamp(min=torch.finfo(torch.float64).tiny).log()
    scores = (log_squares - log_squares.exp().sqrt()).masked_fill(own, 0.0).requires_grad_()

    def bound() -> tuple[Tensor, Tensor]:
        log_share = scores.masked_fill(own, -torch.inf).log_softmax(dim=1)
        share, log_share = log_share.exp(), log_share.masked_fill(own, 0.0)
        along = rows - share @ rows
        along = along.clamp(min=0) if nonnegative else along
        return (share * (log_squares - log_share)).sum(dim=1) - along.norm(dim=1), along

    def climb() -> float:
        optimizer.zero_grad()
        descended = -bound()[0].sum()
        descended.backward()
        return descended.item()

    optimizer = torch.optim.LBFGS(
        [scores], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )
    with torch.enable_grad():
        optimizer.step(climb)
    with torch.no_grad():
        found, along = bound()
    return found, unit_rows(along)


def _from_log_g(log_g: Float[Tensor, "k"], squared_distances: Float[Tensor, "k k"]) -> Float[Tensor, "k"]:
    """The bound of log κ: the smaller of those for R ≤ 1 and for R ≥ 1."""
    classes = len(log_g)
    to_others = squared_distances.masked_fill(torch.eye(classes, dtype=torch.bool), torch.inf)
    nearest = to_others.amin(dim=1)
    log_x = (log_g - nearest.log()).clamp(max=0)
    few = nearest.log() + log_x - 2 * torch.log1p(log_x.exp())
    many = torch.maximum(nearest.min() / 4, nearest * (classes - 1) / classes**2).log()
    return torch.minimum(few, many)


def _search(
    rows: Float[Tensor, "k d"],
    guide: Float[Tensor, "k d"],
    nonnegative: bool,
    restarts: int,
    steps: int,
    seed: int,
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k d"]]:
    """Descents of log κ on the sphere, or its non-negative part; the lowest point of each class that is its top class."""

    def on_sphere(points: Tensor) -> Tensor:
        return unit_rows(points.clamp(min=0) if nonnegative else points)

    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(restarts, *rows.shape, generator=generator, dtype=torch.float64)
    around = noise / math.sqrt(rows.shape[1]) + unit_rows(
        rows
    )  # w_t among the largest, so that most stay with t
    points = on_sphere(torch.cat([guide, rows, *around]))
    wanted = torch.arange(len(rows)).repeat(restarts + 2)
    head = Head(rows, None)
    lowest, where = torch.full((len(points),), torch.inf, dtype=torch.float64), points.clone()
    for step in range(steps + 1):
        points.requires_grad_()
        with torch.enable_grad():
            probe = Probe(points, points, wanted, None, wanted, points, head.logits(points), head)
            values = log_relative_sharpness(probe)
            (slope,) = torch.autograd.grad(values.sum(), points)
        points, values = points.detach(), values.detach()
        lower = (values < lowest) & (probe.predicted == wanted) & (points.norm(dim=1) > 0.5)
        lowest, where = torch.where(lower, values, lowest), torch.where(lower[:, None], points, where)
        length = _LONGEST * (_SHORTEST / _LONGEST) ** (step / steps)
        points = on_sphere(points - length * unit_rows(slope))
    best = lowest.view(-1, len(rows)).argmin(dim=0) * len(rows) + torch.arange(len(rows))
    return lowest[best], where[best]
