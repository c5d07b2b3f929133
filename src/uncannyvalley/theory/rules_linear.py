"""Rules of linear operations: maps are merged while they can be, see ``flow``."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from uncannyvalley.theory.flow import Flow
from uncannyvalley.theory.linear_maps import Convolution, Matrix
from uncannyvalley.theory.operator_norm import matrix_norm
from uncannyvalley.theory.rules import Call, Result, rule

# --- matrices ----------------------------------------------------------------------------------------


def _apply_matrix(call: Call, flow: Flow, weight: Tensor) -> Flow:
    """y = W x along the last axis; merged with a matrix or with scales before it."""
    scale = flow.channel_scale(len(flow.shape) - 1)
    if isinstance(flow.linear, Matrix):
        return flow.with_linear(Matrix(weight @ flow.linear.weight, call.shape), f"{flow.name}, {call.name}")
    if scale is not None:
        return flow.with_linear(Matrix(weight * scale, call.shape), call.name)
    return Flow(flow.settled(), Matrix(weight, call.shape), call.name, call.ledger)


@rule("linear")
def _linear(call: Call) -> Flow:
    return _apply_matrix(call, call.flow("input"), call["weight"])


@rule("addmm")
def _addmm(call: Call) -> Flow:
    return _apply_matrix(call, call.flow("mat1"), call["mat2"].T * call["alpha"])


@rule("mm", "matmul")
def _matmul(call: Call) -> Flow:
    right = call["mat2"] if "mat2" in call.arguments else call["other"]
    if isinstance(right, Tensor) and right.dim() == 2:
        return _apply_matrix(call, call.flow(), right.T)
    left = call["self"]
    if isinstance(left, Tensor) and left.dim() == 2 and isinstance(right, Flow):
        return right.stretched(matrix_norm(left), call.name, call.shape)
    raise call.refusal("a product needs one constant factor with two axes")


# --- factors -----------------------------------------------------------------------------------------


def _constant(call: Call, value: object, flow: Flow) -> Tensor:
    if isinstance(value, Flow) or not isinstance(value, (Tensor, int, float)):
        raise call.refusal("a product of two tensors that both depend on the image has no global bound")
    return torch.as_tensor(value, dtype=torch.float64, device=flow.device)


@rule("mul", "multiply")
def _mul(call: Call) -> Flow:
    flow, other = call["self"], call["other"]
    if not isinstance(flow, Flow):
        flow, other = other, flow
    return flow.times(_constant(call, other, flow), call.name)


@rule("div", "divide", "true_divide")
def _div(call: Call) -> Flow:
    if call["rounding_mode"] is not None:
        raise call.refusal("a rounded quotient jumps")
    flow = call.flow()
    return flow.times(1 / _constant(call, call["other"], flow), call.name)


@rule("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm")
def _batch_norm(call: Call) -> Result:
    """A factor w/√(var + eps) a channel, in evaluation mode."""
    flow, variance, weight = call.flow("input"), call["running_var"], call["weight"]
    if call["training"] or variance is None:
        raise call.refusal("it normalises with the statistics of the batch; use running statistics")
    scale = (variance.double() + call["eps"]).rsqrt()
    scale = scale if weight is None else scale * weight
    result = flow.times(scale.reshape(-1, *[1] * (len(flow.shape) - 2)), call.name)
    return result if isinstance(call.node.meta["val"], Tensor) else (result, None, None)


# --- convolutions ------------------------------------------------------------------------------------


def _axes(values: int | Sequence[int], axes: int) -> tuple[int, ...]:
    listed = [values] if isinstance(values, int) else list(values)
    return tuple(listed * axes if len(listed) == 1 else listed)


@rule("conv1d", "conv2d", "conv3d", "convolution")
def _convolution(call: Call) -> Flow:
    """Kept with its kernel, into which one factor a channel of the input is merged."""
    flow, kernel, axes = call.flow("input"), call["weight"], call["weight"].dim() - 2
    if call["transposed"]:
        return _transposed(call)
    if flow.shape[1] != kernel.shape[1] * call["groups"] or len(flow.shape) != axes + 2:
        raise call.refusal(f"its input has shape {tuple(flow.shape)}, without an axis for images")
    stride, dilation = _axes(call["stride"], axes), _axes(call["dilation"], axes)
    padding = call["padding"]
    if isinstance(padding, str):  # the fuller side of an uneven "same"
        reach = [gap * (taps - 1) for gap, taps in zip(dilation, kernel.shape[2:], strict=True)]
        padding = [0] * axes if padding == "valid" else [math.ceil(one / 2) for one in reach]
    circular = _is_circular(flow, call.shape, stride, padding)
    if circular and flow.wraps is not None:
        flow = flow.wraps
    scale = flow.channel_scale(1)
    base = flow.base if scale is not None else flow.settled()
    if scale is not None:
        groups = call["groups"]
        each = scale.reshape(groups, 1, -1).expand(groups, kernel.shape[0] // groups, -1)
        kernel = kernel * each.reshape(*kernel.shape[:2], *[1] * axes)
    size = tuple(flow.shape[2:])
    pads = _axes(padding, axes)
    linear = Convolution(kernel, size, stride, pads, dilation, call["groups"], call.shape, circular)
    return Flow(base, linear, call.name, call.ledger)


def _is_circular(flow: Flow, shape: torch.Size, stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether circular padding and this convolution are together a part of one circular convolution."""
    if flow.wraps is None or any(padding):
        return False
    sizes = zip(flow.wraps.shape[2:], stride, shape[2:], strict=True)
    return all(n % step == 0 and out <= n // step for n, step, out in sizes)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed(call: Call) -> Flow:
    """The adjoint of the convolution that has the same kernel, so it has the same norm."""
    flow, kernel, axes = call.flow("input"), call["weight"], call["weight"].dim() - 2
    adjoint = Convolution(
        kernel, tuple(call.shape[2:]), _axes(call["stride"], axes), _axes(call["padding"], axes),
        _axes(call["dilation"], axes), call["groups"], flow.shape,
    )  # fmt: skip
    return flow.stretched(adjoint.norm(), call.name, call.shape)


# --- means and pools ---------------------------------------------------------------------------------


@rule("mean", "sum")
def _mean(call: Call) -> Flow:
    """The sum of n entries has norm √n, their mean 1/√n."""
    flow = call.flow()
    axes = call["dim"] if call["dim"] not in (None, []) else range(len(flow.shape))
    axes = [axes] if isinstance(axes, int) else [one % len(flow.shape) for one in axes]
    if 0 in axes:
        raise call.refusal("it runs over the images of the batch")
    count = math.prod(flow.shape[one] for one in axes)
    root = math.sqrt(count)
    return flow.stretched(1 / root if "mean" in str(call.node.target) else root, call.name, call.shape)


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _average_pool(call: Call) -> Flow:
    """A product of one small matrix an axis, whose norms multiply."""
    flow = call.flow()
    axes = len(_pooled(flow, call))
    kernel, padding = _axes(call["kernel_size"], axes), _axes(call["padding"], axes)
    stride = _axes(call["stride"] or kernel, axes)
    divisor, pads = call["divisor_override"], bool(call["count_include_pad"])
    norm = 1.0 if divisor is None else math.prod(kernel) / divisor
    for axis, size in enumerate(_pooled(flow, call)):
        units = torch.eye(size, dtype=torch.float64)[:, None]
        pooled = F.avg_pool1d(
            units, kernel[axis], stride[axis], padding[axis], call["ceil_mode"], pads or divisor is not None
        )
        norm *= matrix_norm(pooled[:, 0])
    if divisor is not None and call["ceil_mode"]:
        raise call.refusal("a divisor together with ceil_mode")
    return flow.stretched(norm, call.name, call.shape)


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_average_pool(call: Call) -> Flow:
    flow, norm = call.flow(), 1.0
    for size, wanted in zip(_pooled(flow, call), call.shape[2:], strict=True):
        units = torch.eye(size, dtype=torch.float64)[:, None]
        norm *= matrix_norm(F.adaptive_avg_pool1d(units, wanted)[:, 0])
    return flow.stretched(norm, call.name, call.shape)


def _pooled(flow: Flow, call: Call) -> torch.Size:
    """Sizes of the pooled axes."""
    if len(flow.shape) != int(str(call.node.target).split("pool")[1][0]) + 2:
        raise call.refusal(f"its input has shape {tuple(flow.shape)}, without an axis for images")
    return flow.shape[2:]
