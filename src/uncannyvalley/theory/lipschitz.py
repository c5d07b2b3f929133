"""Lipschitz constants of the features φ: certified by rules over the traced graph, or sampled at points."""

import math
import operator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from uncannyvalley.checks import check_count, check_images
from uncannyvalley.derivatives.passes import differentiable
from uncannyvalley.errors import InputError
from uncannyvalley.prepare import detached_copy
from uncannyvalley.splitting import SplitModel, split
from uncannyvalley.theory import rules_joining, rules_linear  # noqa: F401  (they enter their rules)
from uncannyvalley.theory.bound import Status
from uncannyvalley.theory.flow import Base, Flow, Ledger
from uncannyvalley.theory.linear_maps import ROUND_UP
from uncannyvalley.theory.rules import Call, contains_flow, rule_of
from uncannyvalley.theory.tracing import Traced, bound_arguments, trace

_SAMPLED_ROWS = 32


@dataclass(frozen=True)
class Lipschitz:
    """A constant L with |φ(x) − φ(x')| ≤ L |x − x'| in L2, pixels in [0, 1].

    value        L, feature units per pixel unit
    status       "certified": holds for all inputs; "estimated": the largest local slope that was found
    factors      where a certified L comes from: by how much an operation multiplies the bound of its
                 input (of the larger one, where it has several). Residual branches stand one behind
                 the other, so the product of all factors is L only for a chain.
    assumptions  one sentence each
    """

    value: float
    status: Status
    factors: tuple[tuple[str, float], ...]
    assumptions: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.status} Lipschitz constant of the features (L2): {self.value:.6g}"]
        lines += [f"  {factor:10.4g}  {name}" for name, factor in self.factors]
        return "\n".join([*lines, *(f"  - {one}" for one in self.assumptions)])


def as_split(model: nn.Module | SplitModel, sample: Float[Tensor, "n ..."] | None) -> SplitModel:
    """A split model as it is; a network split on ``sample``."""
    if isinstance(model, SplitModel):
        model.check_fresh()
        return model
    if sample is None:
        raise InputError("a network must be split first: pass sample= (a few images), or a SplitModel")
    return split(model, check_images(sample), prepare=False)


def as_exact(model: SplitModel) -> SplitModel:
    """The user's own layers in float64: no preparations, which round, and parametrised weights as they come out.

    Such a weight is what the network works with; computed anew in float64 it would be another one.
    """
    baked = detached_copy(model.plain)
    for module in list(baked.modules()):
        if parametrize.is_parametrized(module):
            _bake(module)
    return replace(model, body=baked, module=baked, plain=baked).in_double()


def _bake(module: nn.Module) -> None:
    """Computed weights become plain ones. torch's own removal edits a class that the user's network shares."""
    with torch.no_grad():
        names = list(module.parametrizations)  # type: ignore[arg-type]
        values = {name: getattr(module, name).detach().clone() for name in names}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def lipschitz_bound(model: nn.Module | SplitModel, sample: Float[Tensor, "n ..."] | None = None) -> Lipschitz:
    """A certified upper bound of the Lipschitz constant of φ over all inputs, in L2.

    The network is traced in float64 and followed from the image to φ by one rule an operation (Szegedy
    et al. 2014). Linear maps that follow each other are merged before their norm is taken: input
    normalisation and batch norm into kernels, consecutive matrices. Convolutions by the torus bound.

    Raises InputError for an operation without a rule, naming it and its module.
    """
    model = as_split(model, sample)
    ledger = Ledger()
    features = _follow(trace(as_exact(model)), ledger, model.device)
    value = features.lipschitz if isinstance(features, Flow) else 0.0
    value *= ROUND_UP if ledger.factors else 1
    if not math.isfinite(value):
        raise InputError("the Lipschitz bound is not finite; check the weights for huge or NaN values")
    assumptions = (
        f"L = {value:.6g} is the product and sum of layer norms (an upper bound over all inputs, in L2)",
        "exact arithmetic with the given weights in evaluation mode; scales and batch norm merged into kernels",
    )
    return Lipschitz(value, "certified", tuple(ledger.factors), assumptions)


def _follow(traced: Traced, ledger: Ledger, device: torch.device) -> Any:
    """The value of φ's node: a Flow, or a tensor where φ does not depend on the image."""
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in traced.nodes:
            if node is traced.image:
                start = Base(1.0, node.meta["val"].shape)
                values[node] = Flow.start(start, "image", ledger, device)
            elif node in traced.constants:
                held = traced.constants[node]
                values[node] = held.detach() if isinstance(held, Tensor) else held
            else:
                values[node] = _one_operation(node, values, ledger)
    return values[traced.features]


def _one_operation(node: fx.Node, values: dict[fx.Node, Any], ledger: Ledger) -> Any:
    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
    if node.op != "call_function":
        raise InputError(f"no rule for the graph node {node.format_node()}")
    if not contains_flow(list(args)) and not contains_flow(list(kwargs.values())):
        return node.target(*args, **kwargs)  # type: ignore[operator]
    if node.target is operator.getitem:
        whole: Any = args[0]
        part = whole[args[1]]
        if part is None:
            raise Call(node, {}, ledger).refusal(
                "only the values of a sort, maximum or pool can be bounded, not their places"
            )
        return part
    call = Call(node, bound_arguments(node, values), ledger)
    result = rule_of(call)(call)
    shape = getattr(node.meta["val"], "shape", None)
    if isinstance(result, Flow) and result.shape != shape:
        raise call.refusal(f"its rule gives shape {tuple(result.shape)} where the network has {shape}")
    return result


def sampled_lipschitz(
    model: nn.Module | SplitModel, x: Float[Tensor, "n ..."], *, iterations: int = 10, seed: int = 0
) -> Lipschitz:
    """The largest singular value of ∂φ/∂x at the points ``x``, by power iteration on JᵀJ: an estimate from below.

    It is no bound: L may be larger elsewhere, and power iteration approaches each value from below.
    """
    iterations = check_count("iterations", iterations, 1)
    x = check_images(x)
    exact = as_exact(as_split(model, x))
    draws = torch.Generator().manual_seed(seed)
    largest = 0.0
    for rows in x.split(_SAMPLED_ROWS):
        start = torch.randn(rows.shape, generator=draws, dtype=torch.float64)
        largest = max(
            largest, _local_slopes(exact, exact.place(rows), exact.place(start), iterations).max().item()
        )
    assumptions = (
        f"L = {largest:.6g} is the largest slope found at {len(x)} points ({iterations} power iterations), "
        "not an upper bound",
    )
    return Lipschitz(largest, "estimated", (), assumptions)


def _local_slopes(
    model: SplitModel, x: Float[Tensor, "n ..."], direction: Float[Tensor, "n ..."], iterations: int
) -> Float[Tensor, "n"]:
    """|J v| of the last unit direction v; J v as the derivative of Jᵀu in u, so one graph serves all."""
    x = x.detach().clone().requires_grad_()
    with differentiable():
        features = model.features(x)
    if not features.requires_grad:
        return x.new_zeros(len(x))
    dual = torch.zeros_like(features, requires_grad=True)
    (pulled,) = torch.autograd.grad(features, x, dual, create_graph=True)
    slopes = x.new_zeros(len(x))
    for _ in range(iterations):
        flat = direction.flatten(1)
        unit = (flat / flat.norm(dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)).view_as(x)
        (pushed,) = torch.autograd.grad(pulled, dual, unit, retain_graph=True)
        slopes = pushed.norm(dim=1)
        (direction,) = torch.autograd.grad(features, x, pushed, retain_graph=True)
    return slopes.detach()
