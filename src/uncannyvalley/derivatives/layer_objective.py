"""log κ of an inner layer as something an attack can climb: its gradient in the image by double backward.

With G_s the gradient of z_s − z_t in the layer's weights, t the top class and q_s = p_s e^{-m},
κ = e^m (Σ_{s≠t} q_s |RᵀG_s|² − e^m |Σ q_s RᵀG_s|²), R Rᵀ = W Wᵀ: each G_s keeps its graph to the image, and so does q,
and in the valley nothing cancels. Beyond ``EXACT_CLASSES`` classes κ = e^m E|RᵀG_a|², where G_a is the gradient of
Σ a_s (z_s − z_t) and the random a have covariance diag q − e^m q qᵀ.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.derivatives.class_gradients import RankedClasses
from uncannyvalley.derivatives.estimates import signs
from uncannyvalley.derivatives.passes import check_ownership, logits_at
from uncannyvalley.derivatives.quantities import QUANTITIES
from uncannyvalley.derivatives.sites import Site, find_site
from uncannyvalley.errors import unknown_name
from uncannyvalley.splitting import SplitModel
from uncannyvalley.types import Measure, PerExample, Probe

EXACT_CLASSES = 20
"""Up to here every class has its backward; beyond, random combinations of them."""

CLASS_PROBES = 16
"""Random combinations, the same for every image and every step, so that a walk climbs one function."""


def layer_sharpness(
    model: SplitModel, layer: str, quantity: str = "relative_sharpness", *, probes: int = CLASS_PROBES
) -> PerExample:
    """log κ (or log Tr H, quantity "trace") of each image at ``layer``, differentiable in the image.

    The value is that of ``curvature(net, x, y, layer, quantity)`` where the network is piecewise linear between layer and
    logits; elsewhere it is the Gauss–Newton part of it. It is computed on ``model.plain``, whose inner layers are the
    user's, at cost of classes − 1 backwards (of 16 beyond 20 classes: an unbiased estimate of κ, by fixed random signs),
    and its gradient costs about twice that again. Takes a split model; returns a function of a probe that also is a
    Measure, named as ``log_relative_sharpness@LAYER``.

    Raises InputError for unknown layers and quantities, and for layers whose rows do not belong to the images.
    """
    known = {name: one for name, one in QUANTITIES.items() if one.kind == "trace"}
    if quantity not in known:
        raise unknown_name("differentiable quantity", quantity, known)
    asked, site = known[quantity], find_site(model, layer)
    if asked.relative:
        _ = site.weight  # the input has none: say so before any work
    check_ownership(model, [site])

    def fn(probe: Probe) -> Tensor:
        return log_trace_at(model, site, probe.x, relative=asked.relative, probes=probes)

    fn.__doc__ = f"log of {asked.formula} at {layer}, differentiable in the image."
    return Measure(f"log_{quantity}@{layer}", "log", asked.order, fn, default=False)


@torch.enable_grad()  # measures are read without gradients, but this one is made of them
def log_trace_at(
    model: SplitModel, site: Site, x: Float[Tensor, "n ..."], *, relative: bool, probes: int
) -> Float[Tensor, "n"]:
    """The logarithm of the trace at a site, with a graph to ``x`` if that has one."""
    move = x.new_zeros(len(x), *site.shape).requires_grad_()
    logits = logits_at(model, site, x.contiguous(), move)
    classes = RankedClasses.of(logits)
    pulled = _Pulled(logits, move, site.root.mT.double() if relative else None, keep=x.requires_grad)
    if model.classes <= EXACT_CLASSES:
        summed = _over_classes(classes, pulled)
    else:
        summed = _over_probes(classes, pulled, probes)
    found = classes.softmax.log_scale + summed.clamp(min=torch.finfo(torch.float64).tiny).log()
    return found if x.requires_grad else found.detach()


class _Pulled:
    """RᵀG in float64 for a cotangent of the logits, with its graph where that is wanted."""

    def __init__(self, logits: Tensor, move: Tensor, root: Tensor | None, *, keep: bool) -> None:
        self.logits = logits
        self._move = move
        self._root = root
        self._keep = keep

    def __call__(self, cotangent: Float[Tensor, "n k"]) -> Float[Tensor, "n p"]:
        (gradient,) = torch.autograd.grad(
            self.logits, self._move, cotangent, retain_graph=True, create_graph=self._keep
        )
        gradient = gradient.double()
        return (gradient if self._root is None else self._root @ gradient).flatten(1)


def _over_classes(classes: RankedClasses, pulled: _Pulled) -> Float[Tensor, "n"]:
    """Σ q_s |G_s|² − e^m |Σ q_s G_s|², class by class."""
    weights = classes.weights
    squares = torch.zeros_like(classes.softmax.log_scale)
    mean: Tensor | None = None
    for rank in range(weights.shape[1]):
        if not bool(weights[:, rank].any()):
            break
        gradient = pulled(classes.pull_of(rank, pulled.logits.detach()))
        weighted = weights[:, rank, None] * gradient
        squares = squares + (weighted * gradient).sum(dim=1)
        mean = weighted if mean is None else mean + weighted
    assert mean is not None  # the runner-up has weight 1
    return squares - classes.softmax.scale * mean.square().sum(dim=1)


def _over_probes(classes: RankedClasses, pulled: _Pulled, probes: int) -> Float[Tensor, "n"]:
    """The mean of |G_a|² over a = r ∘ (ε − c r ⟨r, ε⟩), r = √q, c = (1 − √p_t)/Σq, with signs ε that belong to classes.

    a has covariance diag q − e^m q qᵀ: 2c − c² Σq = (1 − p_t)/Σq = e^m.
    """
    root = classes.weights.clamp(min=torch.finfo(torch.float64).tiny).sqrt()  # at 0 its slope is infinite
    shrink = -torch.expm1(classes.softmax.log_top / 2) / classes.weights.sum(dim=1)
    draw = torch.Generator().manual_seed(0)
    total = torch.zeros_like(shrink)
    for _ in range(probes):
        drawn = signs((pulled.logits.shape[1],), draw, root)[classes.order]
        amounts = root * (drawn - (shrink * (root * drawn).sum(dim=1))[:, None] * root)
        total = total + pulled(classes.pull(amounts, pulled.logits)).square().sum(dim=1)
    return total / probes
