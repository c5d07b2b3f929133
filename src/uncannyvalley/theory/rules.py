"""One rule for each operation: how far it can spread two inputs apart (L2, whole tensors)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, fx

from uncannyvalley.errors import InputError
from uncannyvalley.theory.flow import Flow, Half, Ledger
from uncannyvalley.theory.linear_maps import Selection
from uncannyvalley.theory.tracing import evaluate, operation_name, where


@dataclass(frozen=True)
class Call:
    """One operation on tensors of the network: ``arguments`` are flows where they depend on the image."""

    node: fx.Node
    arguments: dict[str, Any]
    ledger: Ledger

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def flow(self, name: str = "self") -> Flow:
        """The one argument that may depend on the image."""
        found = self.arguments.get(name)
        others = [key for key, value in self.arguments.items() if key != name and contains_flow(value)]
        if not isinstance(found, Flow) or others:
            raise self.refusal("more than its input depends on the image")
        return found

    @property
    def shape(self) -> torch.Size:
        value = self.node.meta["val"]
        return torch.Size((value if isinstance(value, Tensor) else value[0]).shape)

    @property
    def name(self) -> str:
        return where(self.node)

    def refusal(self, reason: str) -> InputError:
        return InputError(
            f"no certified Lipschitz rule for {self.name}: {reason}. Use sampled_lipschitz(net, x) or uncanny certify --estimate-only for an estimate, "
            "or replace the operation by one with a rule"
        )


Result = Flow | tuple[Flow | None, ...]
Rule = Callable[[Call], Result]
RULES: dict[str, Rule] = {}


Specific = TypeVar("Specific", bound=Rule)


def rule(*names: str) -> Callable[[Specific], Specific]:
    """Enter a rule under the names of its operations."""

    def enter(function: Specific) -> Specific:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def rule_of(call: Call) -> Rule:
    """The rule for an operation; InputError naming it where there is none."""
    found = RULES.get(operation_name(call.node))
    if found is None:
        raise call.refusal("the operation is unknown, or no finite bound holds for all inputs")
    return found


def contains_flow(value: Any) -> bool:
    """Whether an argument, or a part of it, depends on the image."""
    if isinstance(value, (list, tuple)):
        return any(contains_flow(one) for one in value)
    return isinstance(value, Flow)


# --- entry by entry: the largest slope ---------------------------------------------------------------

SLOPES: dict[str, float] = {
    "relu": 1, "relu6": 1, "hardtanh": 1, "clamp": 1, "clip": 1, "clamp_min": 1, "clamp_max": 1, "abs": 1,
    "tanh": 1, "sin": 1, "cos": 1, "atan": 1, "arctan": 1, "softplus": 1, "log_sigmoid": 1,
    "sigmoid": 0.25, "hardsigmoid": 0.1666667, "hardswish": 1.5,
    "silu": 1.09984, "mish": 1.08850, "selu": 1.7580994,
}  # fmt: skip
"""Suprema of |f'|, rounded up in the last digit given. Softplus is the smooth function, without torch's threshold."""

GELU_SLOPES = {"none": 1.128905, "tanh": 1.13}
"""sup |gelu'| of the exact form (1.12890424, at √2) and of the one by tanh, rounded up."""


def _slope(call: Call) -> Flow:
    name, flow = operation_name(call.node), call.flow()
    half = Half("relu", (flow,)) if name == "relu" else None
    return flow.stretched(float(SLOPES[name]), call.name, call.shape, half)


for _name in SLOPES:
    RULES[_name] = _slope


@rule("neg")
def _neg(call: Call) -> Flow:
    flow = call.flow()
    base, selection = flow.selected()  # measured once for both signs
    result = Flow(base, Selection(selection.index, -selection.scale), call.name, call.ledger)
    result.negative_of = flow
    return result


@rule("gelu")
def _gelu(call: Call) -> Flow:
    return call.flow().stretched(GELU_SLOPES[call["approximate"]], call.name, call.shape)


@rule("leaky_relu")
def _leaky_relu(call: Call) -> Flow:
    return call.flow().stretched(max(1.0, abs(call["negative_slope"])), call.name, call.shape)


@rule("elu")
def _elu(call: Call) -> Flow:
    falling = abs(call["alpha"] * call["input_scale"] * call["scale"])
    return call.flow().stretched(max(abs(call["scale"]), falling), call.name, call.shape)


@rule("celu")
def _celu(call: Call) -> Flow:
    return call.flow().stretched(1.0, call.name, call.shape)


@rule("prelu", "_prelu_kernel")
def _prelu(call: Call) -> Flow:
    return call.flow().stretched(max(1.0, call["weight"].abs().max().item()), call.name, call.shape)


# --- entries that only move --------------------------------------------------------------------------

MOVES = (
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t", "numpy_T", "squeeze",
    "unsqueeze", "expand", "expand_as", "clone", "contiguous", "alias", "detach", "lift_fresh_copy", "slice", "select",
    "narrow", "index", "index_select", "flip", "roll", "repeat", "repeat_interleave", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "diagonal", "movedim", "swapaxes", "unfold", "split", "chunk",
    "split_with_sizes", "unbind", "tensor_split", "rot90", "im2col", "upsample_nearest2d",
)  # fmt: skip


def move(call: Call, **replaced: Any) -> Result:
    """The operation itself, run on the selection's indices and scales."""
    name = next(iter(call.arguments))
    base, selection = call.flow(name).selected()
    given = {**call.arguments, **replaced}
    indices = evaluate(call.node, {**given, name: selection.index})
    scales = evaluate(call.node, {**given, name: selection.scale})
    if isinstance(indices, Tensor):
        return Flow(base, Selection(indices, scales), call.name, call.ledger)
    return tuple(
        Flow(base, Selection(*both), call.name, call.ledger) for both in zip(indices, scales, strict=True)
    )


for _name in MOVES:
    RULES[_name] = move


@rule("pad", "constant_pad_nd")
def _pad(call: Call) -> Result:
    if call["mode"] in (None, "constant"):
        return move(call, value=0)
    result, flow = move(call), call.flow()
    spatial = len(call["pad"]) == 2 * (len(flow.shape) - 2) and min(call["pad"]) >= 0
    if isinstance(result, Flow) and call["mode"] == "circular" and spatial:
        result.wraps = flow
    return result


@rule("to", "_to_copy", "type_as")
def _cast(call: Call) -> Flow:
    if not call.node.meta["val"].is_floating_point():
        raise call.refusal("it turns the tensor into whole numbers, which jump")
    return call.flow()


@rule("dropout", "feature_dropout", "alpha_dropout")
def _dropout(call: Call) -> Flow:
    if call["train"]:
        raise call.refusal("it is random; call model.eval() first")
    return call.flow("input")
