"""Rules of operations on several tensors, and of those that choose among entries."""

import math
from typing import Any

import torch
from torch import Tensor

from uncannyvalley.theory.flow import Base, Flow, Half
from uncannyvalley.theory.joining import joint_lipschitz
from uncannyvalley.theory.linear_maps import ROUND_UP, Selection
from uncannyvalley.theory.rules import Call, Result, rule
from uncannyvalley.theory.tracing import evaluate, operation_name

# --- sums --------------------------------------------------------------------------------------------


@rule("add", "sub", "subtract", "rsub")
def _add(call: Call) -> Flow:
    """|a + αb| spreads by L_a + |α| L_b at most; less where both are selections of one tensor."""
    name = operation_name(call.node)
    alpha = float(call["alpha"] if call["alpha"] is not None else 1)
    factors = {"add": (1.0, alpha), "rsub": (-alpha, 1.0)}.get(name, (1.0, -alpha))
    terms = [
        flow.times(torch.tensor(factor, dtype=torch.float64, device=flow.device), call.name)
        if factor != 1
        else flow
        for flow, factor in zip((call["self"], call["other"]), factors, strict=True)
        if isinstance(flow, Flow)
    ]
    terms = [_broadcast(flow, call) for flow in terms]
    if len(terms) == 1:
        return terms[0].with_linear(terms[0].linear, terms[0].name)
    one, two = terms
    both = (one.linear, two.linear)
    if one.base is two.base and isinstance(both[0], Selection) and isinstance(both[1], Selection):
        if torch.equal(both[0].index, both[1].index):  # 2x, or x minus a part of itself
            merged = Selection(both[0].index, both[0].scale + both[1].scale)
            return one.with_linear(merged, call.name)
        stacked = joint_lipschitz(terms)  # |a + b| is at most √2 |(a, b)|
        if math.sqrt(2) * stacked < one.lipschitz + two.lipschitz:
            return _new(call, math.sqrt(2) * stacked * ROUND_UP, one)
    larger, total = max(one.lipschitz, two.lipschitz), one.lipschitz + two.lipschitz
    call.ledger.note(f"{call.name} of two branches", total / larger if larger else 1.0)
    return _new(call, total * ROUND_UP, one)


def _broadcast(flow: Flow, call: Call) -> Flow:
    if flow.shape == call.shape:
        return flow
    return flow.moved(lambda entries: entries.broadcast_to(call.shape), call.name)


def _new(call: Call, lipschitz: float, flow: Flow, half: Half | None = None) -> Flow:
    return Flow.start(Base(lipschitz, call.shape, half), call.name, call.ledger, flow.device)


# --- side by side ------------------------------------------------------------------------------------


@rule("cat", "concat", "concatenate", "stack")
def _join(call: Call) -> Flow:
    """Parts of one tensor stay a selection of it; different tensors give √(Σ L²)."""
    parts = call["tensors"]
    flows = [one for one in parts if isinstance(one, Flow)]
    selected = [one.selected() if isinstance(one.linear, Selection) else None for one in flows]
    if all(one is not None and one[0] is flows[0].base for one in selected):
        index = evaluate(call.node, {**call.arguments, "tensors": _entries(parts, "index")})
        scale = evaluate(call.node, {**call.arguments, "tensors": _entries(parts, "scale")})
        return flows[0].with_linear(Selection(index, scale), call.name)
    total, largest = joint_lipschitz(flows), max(one.lipschitz for one in flows)
    call.ledger.note(f"{call.name} of {len(flows)} branches", total / largest if largest else 1.0)
    return _new(call, total, flows[0])


def _entries(parts: list[Any], what: str) -> list[Tensor]:
    """Indices or scales of the parts, zeros for constants."""
    return [
        getattr(one.linear, what) if isinstance(one, Flow) else torch.zeros_like(one, dtype=torch.float64)
        for one in parts
    ]


# --- choices -----------------------------------------------------------------------------------------


@rule("maximum", "minimum", "max", "min", "fmax", "fmin")
def _extreme(call: Call) -> Result:
    """Of two tensors: as far apart as both together. Of the entries along an axis: as the tensor."""
    if call["other"] is None:
        return _largest_of_axis(call)
    flows = [_broadcast(one, call) for one in (call["self"], call["other"]) if isinstance(one, Flow)]
    kind = _which_end(call)
    total, largest = joint_lipschitz(flows), max(one.lipschitz for one in flows)
    call.ledger.note(call.name, total / largest if largest else 1.0)
    return _new(call, total, flows[0], Half(kind, tuple(flows)) if len(flows) == 2 else None)


@rule("amax", "amin")
def _largest_of_axis(call: Call) -> Result:
    axes = call["dim"]
    if axes is None or axes in (0, []) or (isinstance(axes, (list, tuple)) and 0 in axes):
        raise call.refusal("it runs over the images of the batch")
    flow = call.flow()
    along = tuple(one % len(flow.shape) for one in ([axes] if isinstance(axes, int) else axes))
    several = (
        math.prod(flow.shape[one] for one in along) > 1
    )  # of one entry, largest and smallest are the same
    half = Half(_which_end(call), (flow,), along) if several else None
    values = flow.stretched(1.0, call.name, call.shape, half)
    return values if isinstance(call.node.meta["val"], Tensor) else (values, None)


def _which_end(call: Call) -> str:
    return "max" if "max" in operation_name(call.node) else "min"


@rule("sort")
def _sort(call: Call) -> Result:
    """Sorted values are at most as far apart as the unsorted ones; their places are no continuous function."""
    return call.flow().stretched(1.0, call.name, call.shape), None


@rule("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
def _max_pool(call: Call) -> Result:
    """√(the largest number of windows that an entry lies in): taps of one residue modulo the stride."""
    flow = call.flow()
    axes = len(call["kernel_size"]) if not isinstance(call["kernel_size"], int) else len(flow.shape) - 2
    kernel, dilation = _per_axis(call["kernel_size"], axes), _per_axis(call["dilation"], axes)
    stride = _per_axis(call["stride"] or kernel, axes)
    windows = 1
    for taps, gap, step in zip(kernel, dilation, stride, strict=True):
        residues = [gap * tap % step for tap in range(taps)]
        windows *= max(residues.count(one) for one in residues)
    factor = math.sqrt(windows) * (ROUND_UP if windows > 1 else 1.0)
    values = flow.stretched(factor, call.name, call.shape)
    return values if isinstance(call.node.meta["val"], Tensor) else (values, None)


def _per_axis(values: Any, axes: int) -> list[int]:
    listed = [values] if isinstance(values, int) else list(values)
    return listed * axes if len(listed) == 1 else listed
