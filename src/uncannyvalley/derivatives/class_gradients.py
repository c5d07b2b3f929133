"""Exact second and third order where the network is piecewise linear: from the gradients of z_s − z_t.

There the Hessian at a site is Σ_c p_c (G_c − Ḡ)(G_c − Ḡ)ᵀ with G_c the gradient of logit c. Relative to the top class
t, with G_s the gradient of z_s − z_t and q_s = p_s e^{-m}, it is e^m (Σ_{s≠t} q_s G_s G_sᵀ − e^m Ḡ Ḡᵀ),
Ḡ = Σ q_s G_s: k − 1 backwards for a whole batch and all its sites, and nothing cancels in the valley.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.derivatives.passes import Traced
from uncannyvalley.derivatives.quantities import Quantity
from uncannyvalley.derivatives.sites import Site, shortened
from uncannyvalley.measures.eigenvalue import log_largest_of_gram
from uncannyvalley.measures.third_cumulant import log_cumulant_of_gram
from uncannyvalley.softmax import TopClassSoftmax


@dataclass(frozen=True)
class RankedClasses:
    """The classes s ≠ t of each row, most probable first, and the softmax in that order without its top class."""

    order: Int[Tensor, "n c"]
    top: Int[Tensor, "n"]
    softmax: TopClassSoftmax

    @classmethod
    def of(cls, logits: Float[Tensor, "n k"]) -> "RankedClasses":
        softmax = TopClassSoftmax.of(logits)
        # by whole 1e-5 nats, equal ones by number: float noise must not decide who is summed and who is probed
        ranks = (softmax.weights.log() * 1e5).round().clamp(min=-1e9)
        behind_all = ranks.scatter(1, softmax.top[:, None], -torch.inf)
        order = behind_all.argsort(dim=1, descending=True, stable=True)[:, :-1]
        return cls(order, softmax.top, replace(softmax, weights=softmax.weights.gather(1, order)))

    @property
    def weights(self) -> Float[Tensor, "n c"]:
        """q_s, descending from 1 (where they are equal within 1e-5 nats, by class)."""
        return self.softmax.weights

    def pull(self, amounts: Float[Tensor, "n c"], like: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The cotangent of Σ_s amounts_s (z_s − z_t)."""
        cotangent = torch.zeros_like(like, dtype=torch.float64).scatter_(1, self.order, amounts)
        cotangent.scatter_(1, self.top[:, None], -amounts.sum(1, True))
        return cotangent.to(like)

    def pull_of(self, rank: int, like: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The cotangent of z_s − z_t for the class of that rank."""
        one = torch.zeros_like(like).scatter_(1, self.order[:, rank, None], 1.0)
        return one.scatter_(1, self.top[:, None], -1.0)


class SiteGradients:
    """Backward passes from the logits to all sites of one forward."""

    def __init__(self, traced: Traced, sites: Sequence[Site], metrics: Collection[bool]) -> None:
        self._traced = traced
        self._metrics = metrics
        self._sites = sites
        self._outputs = [traced.outputs[site.name][0] for site in sites]
        self._patches = {site.name: shortened(site.patches(traced.inputs[site.name][0])) for site in sites}
        self.backwards = 0

    def __call__(self, cotangent: Float[Tensor, "n k"]) -> dict[tuple[str, bool], Float[Tensor, "n p"]]:
        """Gradient of ⟨cotangent, z⟩ in each example's own weights, by (site, whether relative).

        In coordinates that keep inner products, and are fewer where the layer acts at few places (``shortened``).
        """
        pulls = torch.autograd.grad(
            self._traced.logits, self._outputs, cotangent, retain_graph=True, materialize_grads=True,
            allow_unused=True,
        )  # fmt: skip
        self.backwards += 1
        return {
            (site.name, metric): gradient
            for site, pull in zip(self._sites, pulls, strict=True)
            for metric, gradient in site.gradients(self._patches[site.name], pull, self._metrics).items()
        }

    def by_class(self, classes: RankedClasses) -> Iterator[tuple[int, dict[tuple[str, bool], Tensor]]]:
        """Rank and gradients of z_s − z_t, class by class; ends where all further weights are zero."""
        for rank in range(classes.order.shape[1]):
            if not bool(classes.weights[:, rank].any()):
                return
            yield rank, self(classes.pull_of(rank, self._traced.logits))


class Traces:
    """log Tr of each site in each metric, gathered class by class: memory for one gradient a site."""

    def __init__(self, classes: RankedClasses) -> None:
        self._classes = classes
        self._squares: dict[tuple[str, bool], Tensor] = {}
        self._means: dict[tuple[str, bool], Tensor] = {}

    def add(self, rank: int, key: tuple[str, bool], gradient: Float[Tensor, "n p"]) -> None:
        weight = self._classes.weights[:, rank]
        squared = weight * torch.linalg.vector_norm(gradient, dim=1).double().square()
        scaled = weight.to(gradient)[:, None]
        if key not in self._squares:
            self._squares[key], self._means[key] = squared, scaled * gradient
            return
        self._squares[key] += squared
        self._means[key].addcmul_(scaled, gradient)

    def log_trace(self, key: tuple[str, bool]) -> Float[Tensor, "n"]:
        """m + log(Σ q |G|² − e^m |Σ q G|²)."""
        softmax = self._classes.softmax
        mean = torch.linalg.vector_norm(self._means[key], dim=1).double().square()
        return softmax.log_scale + (self._squares[key] - softmax.scale * mean).clamp(min=0).log()


class Grams:
    """⟨G_s, G_s'⟩ of each site in each metric: from it follow all quantities. Keeps every class's gradient."""

    def __init__(self, classes: RankedClasses) -> None:
        self._classes = classes
        self._kept: dict[tuple[str, bool], list[Tensor]] = {}

    def add(self, rank: int, key: tuple[str, bool], gradient: Float[Tensor, "n p"]) -> None:
        self._kept.setdefault(key, []).append(gradient)

    def log_value(self, key: tuple[str, bool], quantity: Quantity) -> Float[Tensor, "n"]:
        stacked = torch.stack(self._kept[key], dim=1)
        gram = (stacked @ stacked.mT).double()
        softmax = self._classes.softmax
        softmax = replace(softmax, weights=softmax.weights[:, : gram.shape[1]])
        if quantity.kind == "top_eigenvalue":
            return log_largest_of_gram(softmax, gram)
        return log_cumulant_of_gram(softmax, gram)


def exact_quantities(
    traced: Traced, sites: Sequence[Site], quantities: Sequence[Quantity]
) -> tuple[dict[tuple[str, str], Float[Tensor, "n"]], int]:
    """log of each quantity at each site, by (site, quantity), and the number of backwards."""
    classes = RankedClasses.of(traced.logits.detach())
    kinds = {metric: {one.kind for one in quantities if one.relative == metric} for metric in (False, True)}
    gradients = SiteGradients(traced, sites, [metric for metric in kinds if kinds[metric]])
    traces, grams = Traces(classes), Grams(classes)
    for rank, found in gradients.by_class(classes):
        for key, gradient in found.items():
            if "trace" in kinds[key[1]]:
                traces.add(rank, key, gradient)
            if kinds[key[1]] - {"trace"}:
                grams.add(rank, key, gradient)
    return {
        (site.name, one.name): traces.log_trace((site.name, one.relative))
        if one.kind == "trace"
        else grams.log_value((site.name, one.relative), one)
        for site in sites
        for one in quantities
    }, gradients.backwards


def bytes_for_each_image(
    sites: Sequence[Site], quantities: Sequence[Quantity], classes: int, item: int
) -> int:
    """Memory of the gradients that are kept, for one image."""
    weights = sum(site.size() for site in sites)
    metrics = len({one.relative for one in quantities})
    keeps_all = any(one.kind != "trace" for one in quantities)
    copies = (classes - 1) * 2 if keeps_all else 3
    return item * weights * metrics * copies
