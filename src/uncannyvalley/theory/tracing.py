"""The network as a graph of tensor operations, with its weights as constants."""

import operator
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from uncannyvalley.errors import InputError
from uncannyvalley.find_head import tensor_of
from uncannyvalley.splitting import SplitModel

_ROWS = 2
"""Images of the traced example: not 1, which torch.export would take for a size that never changes."""


class _Features(nn.Module):
    """The body, returning its tensor alone."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return tensor_of(self.body(x))


@dataclass(frozen=True)
class Traced:
    """Operations in order, without in-place ones.

    nodes      all nodes that the features need
    constants  values of the placeholders that are weights, buffers or lifted constants
    image      the placeholder of the images
    features   the node of φ
    """

    nodes: tuple[fx.Node, ...]
    constants: dict[fx.Node, Any]
    image: fx.Node
    features: fx.Node


def trace(model: SplitModel) -> Traced:
    """Trace the plain float64 body of ``model`` (see ``lipschitz.as_exact``).

    Raises InputError where torch.export cannot follow the network's Python.
    """
    example = torch.rand((_ROWS, *model.sample_shape), dtype=torch.float64, device=model.device)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch about its own exporter
            exported = torch.export.export(_Features(model.plain), (example,), strict=False)
            exported = exported.run_decompositions({})  # no in-place operation is left
    except Exception as error:  # whatever the exporter meets in foreign Python
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise InputError(
            "torch.export cannot trace the network, so no Lipschitz constant can be certified "
            f"({type(error).__name__}: {first_line}). Remove steps that depend on pixel values, or use "
            "sampled_lipschitz (or uncanny certify --estimate-only) for an estimate"
        ) from error
    return _as_traced(exported)


def _as_traced(exported: Any) -> Traced:
    graph, signature = exported.graph, exported.graph_signature
    held = {**exported.constants, **exported.state_dict}
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    constants: dict[fx.Node, Any] = {}
    images = []
    for node, spec in zip(placeholders, signature.input_specs, strict=True):
        if spec.kind == torch.export.graph_signature.InputKind.USER_INPUT:
            images.append(node)
        else:
            constants[node] = held[spec.target]
    (image,) = images
    output = next(node for node in graph.nodes if node.op == "output")
    names = {one.arg.name for one in signature.output_specs if one.kind.name == "USER_OUTPUT"}
    features = next(node for node in output.all_input_nodes if node.name in names)
    needed = set(_ancestors(features))
    return Traced(tuple(n for n in graph.nodes if n in needed), constants, image, features)


def _ancestors(node: fx.Node) -> Iterator[fx.Node]:
    seen, waiting = {node}, [node]
    while waiting:
        one = waiting.pop()
        yield one
        for source in one.all_input_nodes:
            if source not in seen:
                seen.add(source)
                waiting.append(source)


def operation_name(node: fx.Node) -> str:
    """conv2d, relu, …: without overload and in-place mark; getitem for a part of a tuple."""
    if node.target is operator.getitem:
        return "getitem"
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target))
    name = schema.name.removeprefix("aten::")
    return name if name.endswith("__") else name.rstrip("_")


def module_name(node: fx.Node) -> str:
    """The dotted name of the user's module that called the operation; empty where none did."""
    stack = node.meta.get("nn_module_stack") or {}
    entered = [path for path, _ in stack.values()]
    return entered[-1].removeprefix("body").lstrip(".") if entered else ""


def where(node: fx.Node) -> str:
    """Module and operation, for tables and errors."""
    module = module_name(node)
    return f"{module} ({operation_name(node)})" if module else operation_name(node)


def bound_arguments(node: fx.Node, values: dict[fx.Node, Any]) -> dict[str, Any]:
    """All arguments of a torch operation by the names of its schema, nodes replaced by their values."""
    schema: Any = getattr(node.target, "_schema", None)
    if schema is None:
        raise InputError(f"no rule for {where(node)}, which is not a plain torch operation")
    named = {one.name: one.default_value for one in schema.arguments if one.has_default_value()}
    given = [one.name for one in schema.arguments][: len(node.args)]
    named |= dict(zip(given, node.args, strict=True)) | node.kwargs
    in_order = [one.name for one in schema.arguments if one.name in named]
    return {name: fx.map_arg(named[name], values.__getitem__) for name in in_order}


def evaluate(node: fx.Node, named: dict[str, Any]) -> Any:
    """Run the operation of ``node`` with arguments by name."""
    schema: Any = node.target._schema  # type: ignore[union-attr]
    positional = [named[one.name] for one in schema.arguments if not one.kwarg_only and one.name in named]
    by_name = {one.name: named[one.name] for one in schema.arguments if one.kwarg_only and one.name in named}
    return node.target(*positional, **by_name)  # type: ignore[operator]
