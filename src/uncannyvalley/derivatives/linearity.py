"""Is the network piecewise linear between a site and its logits? Decided by its operations, else by a second derivative.

Where it is, the Hessian of the loss at the site is the covariance of class gradients, exactly, and no second
backward is needed. Module classes say nothing here: what counts is which operations ran.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from uncannyvalley.derivatives.passes import Traced, logits_at
from uncannyvalley.derivatives.sites import Site
from uncannyvalley.errors import InputError, first_line
from uncannyvalley.splitting import SplitModel

_PIECEWISE_LINEAR = frozenset(
    # one text, since a list would take a screen
    """AccumulateGrad Add Sub Neg Sum Mean Clone Alias View UnsafeView ReshapeAlias Reshape ToCopy Copy
    Slice Select Index Gather Narrow Split SplitWithSizes Unbind Cat Stack Expand Repeat Permute Transpose T
    Squeeze Unsqueeze AsStrided Unfold Im2Col Flip Roll PixelShuffle ConstantPadNd ReflectionPad1D ReflectionPad2D
    ReplicationPad2D Relu Threshold LeakyRelu Hardtanh Clamp ClampMin ClampMax Abs Max Min Amax Amin Maximum Minimum
    Sort Topk Where MaskedFill MaxPool1DWithIndices MaxPool2DWithIndices MaxPool3DWithIndices AvgPool2D AvgPool3D
    AdaptiveAvgPool2D AdaptiveAvgPool3D MkldnnMaxPool2D UpsampleNearest2D UpsampleBilinear2D""".split()  # noqa: SIM905
)
"""Operations that are linear, or linear in pieces, in all that they take."""

_LINEAR_IN_EACH = {
    "Mul": (0, 1), "Mm": (0, 1), "Bmm": (0, 1), "Mv": (0, 1), "Addmm": (1, 2), "Addmv": (1, 2), "Baddbmm": (1, 2),
    "Convolution": (0, 1), "CudnnConvolution": (0, 1), "MkldnnConvolution": (0, 1), "Linear": (0, 1),
    "PreluKernel": (0, 1),
}  # fmt: skip
"""Products: linear where only one of these two factors depends on the site."""

_LINEAR_IN_FIRST = {
    "Div": (1,),
    "NativeBatchNorm": (1, 2),
    "CudnnBatchNorm": (1, 2),
    "MiopenBatchNorm": (1, 2),
}
"""Linear where none of these operands depends on the site."""


def linear_by_operations(traced: Traced) -> bool:
    """Whether every operation that ran between the sites and the logits is linear in pieces.

    The sites' own products count as linear if each layer was called once.
    """
    return traced.called_once() and all(_is_linear(node) for node in _nodes(traced.logits))


def _nodes(output: Tensor) -> Iterator[torch.autograd.graph.Node]:
    waiting = [output.grad_fn] if output.grad_fn is not None else []
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                waiting.append(before)


def _is_linear(node: torch.autograd.graph.Node) -> bool:
    if isinstance(node, BackwardCFunction):  # the user's own, whatever its name
        return False
    name = node.name().split("::")[-1].rstrip("0123456789").removesuffix("Backward")
    depends = [before is not None for before, _ in node.next_functions]
    if name in _LINEAR_IN_EACH:
        return sum(depends[position] for position in _LINEAR_IN_EACH[name] if position < len(depends)) < 2
    if name in _LINEAR_IN_FIRST:
        in_evaluation = not getattr(node, "_saved_training", False)
        return in_evaluation and not any(depends[p] for p in _LINEAR_IN_FIRST[name] if p < len(depends))
    return name in _PIECEWISE_LINEAR


def linear_by_numbers(model: SplitModel, site: Site, x: Float[Tensor, "n ..."]) -> bool:
    """Whether the second derivative of the logits at the site is exactly zero for these images.

    Taken along a random direction for a random combination of logits: an operation that curves gives a number there,
    one that is linear in pieces gives none.
    """
    draw = torch.Generator().manual_seed(0)
    move = x.new_zeros(len(x), *site.shape).requires_grad_()
    logits = logits_at(model, site, x, move)
    check_twice_differentiable(logits)
    mix = torch.randn(logits.shape, generator=draw, dtype=torch.float64).to(logits)
    (gradient,) = torch.autograd.grad((mix * logits).sum(), move, create_graph=True)
    if not gradient.requires_grad:
        return True
    along = torch.randn(gradient.shape[1:], generator=draw, dtype=torch.float64).to(gradient)
    curvature = second_derivative((along * gradient).sum(), move)
    return not bool(curvature.any())


def check_twice_differentiable(logits: Tensor) -> None:
    """Raise InputError where a custom function marked once_differentiable ran.

    torch takes its backward for a constant, and so gives a part of the Hessian without a word.
    """
    for node in _nodes(logits):
        if not isinstance(node, BackwardCFunction):
            continue
        backward = type(node)._forward_cls.backward
        if backward.__code__.co_filename == torch.autograd.function.__file__:  # the decorator's wrapper
            name = node.name().removesuffix("Backward")
            raise _no_second_derivative(f"the custom function {name} is marked once_differentiable")


def _no_second_derivative(reason: str) -> InputError:
    return InputError(
        f"an operation of the model has no second derivative in torch ({reason}); replace it by one that has, or "
        "measure a layer behind it"
    )


def second_derivative(total: Tensor, at: Tensor, *, again: bool = False) -> Tensor:
    """∂total/∂at of something that is a gradient already; a clear error where an operation has no second derivative."""
    if not total.requires_grad:
        return torch.zeros_like(at)
    try:
        (result,) = torch.autograd.grad(
            total, at, create_graph=again, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    except RuntimeError as error:
        raise _no_second_derivative(first_line(error)) from error
    return result
