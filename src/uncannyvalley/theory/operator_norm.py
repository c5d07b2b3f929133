"""Certified upper bounds of operator norms in L2.

Power iteration approaches a norm from below, so it certifies nothing. Here every norm is the largest
eigenvalue of a Gram matrix by LAPACK, or the trace of a high power of it (Gram iteration), in float64.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from uncannyvalley.errors import InputError

ROUND_UP = 1 + 1e-9
"""Covers the rounding of LAPACK and of the phases, about 1e-13 for the sizes in use."""

DENSE_SIDE = 1024
"""A convolution whose matrix has a side of at most this is measured as a matrix: exact, not a bound."""

EIGEN_SIDE = 640
"""Gram matrices above this side use Gram iteration, whose cost is that of a few products."""

_DENSE_ENTRIES = 1 << 22
_CHUNK_ENTRIES = 1 << 21
_GRAM_SQUARINGS = 9


def matrix_norm(weight: Float[Tensor, "out in"]) -> float:
    """An upper bound of the largest singular value of ``weight``, within 1e-9 (0.5 % for sides above 640)."""
    _check_finite(weight)
    return _largest_singular_value(weight.double()[None]) * ROUND_UP


def convolution_norm(
    kernel: Float[Tensor, "out in_of_group ..."],
    input_size: Sequence[int],
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int = 0,
    dilation: Sequence[int] | int = 1,
    groups: int = 1,
) -> float:
    """An upper bound of the L2 norm of a zero-padded convolution of inputs of ``input_size`` (1 to 3 axes).

    Small ones are measured as a matrix. For the others, an input laid on a torus with
    N >= size + padding points an axis, N a multiple of the stride, meets only zeros where its windows wrap,
    so the zero-padded convolution is a restriction of the circular one and its norm is at most that one's:
    see ``torus_norm``. ``padding`` is that of the fuller side where the two sides differ.

    Raises InputError where the arguments do not fit together.
    """
    _check_finite(kernel)
    axes = kernel.dim() - 2
    size = _each_axis("input_size", input_size, axes, 1)
    steps, pads = _each_axis("stride", stride, axes, 1), _each_axis("padding", padding, axes, 0)
    gaps = _each_axis("dilation", dilation, axes, 1)
    if groups < 1 or kernel.shape[0] % groups:
        raise InputError(f"groups must divide the {kernel.shape[0]} output channels, got {groups}")
    exact = kernel.double().reshape(groups, -1, *kernel.shape[1:])
    reach = [gap * (taps - 1) + 1 for gap, taps in zip(gaps, kernel.shape[2:], strict=True)]
    outputs = [(n + 2 * p - r) // s + 1 for n, p, r, s in zip(size, pads, reach, steps, strict=True)]
    if min(outputs) < 1:
        raise InputError(
            f"a kernel that reaches over {reach} does not fit an input of {size} with padding {pads}"
        )
    sides = (exact.shape[1] * math.prod(outputs), exact.shape[2] * math.prod(size))
    if min(sides) <= DENSE_SIDE and math.prod(sides) <= _DENSE_ENTRIES:
        return max(matrix_norm(_dense(one, size, steps, pads, gaps)) for one in exact)
    points = [
        math.ceil((n + p) / s) * s if taps > 1 else s  # one tap reads no neighbours: any torus will do
        for n, p, s, taps in zip(size, pads, steps, kernel.shape[2:], strict=True)
    ]
    return torus_norm(exact, points, steps, gaps)


def torus_norm(
    kernel: Float[Tensor, "groups out in ..."],
    points: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> float:
    """The norm of the circular convolution on a torus of ``points``, rounded up by 1e-9.

    At output frequency f it acts as the out x (in · Π stride) matrix of K̂ at the Π stride frequencies
    f + a·points/stride that a stride folds onto f, over √(Π stride) (polyphase form). Half of the
    frequencies of the last axis suffice: the others are their complex conjugates.
    """
    largest = 0.0
    entries = kernel.shape[0] * kernel.shape[1] * kernel.shape[2] * math.prod(stride)
    for which in _frequency_chunks(points, stride, max(1, _CHUNK_ENTRIES // entries), kernel.device):
        responses = _responses(kernel, which, points, stride, dilation)
        largest = max(largest, _largest_singular_value(responses))
    return largest * ROUND_UP


def _frequency_chunks(
    points: Sequence[int], stride: Sequence[int], rows: int, device: torch.device
) -> Iterator[Tensor]:
    """Output frequencies (f, axes), some at a time."""
    ranges = [torch.arange(n // s, device=device) for n, s in zip(points, stride, strict=True)]
    ranges[-1] = ranges[-1][: points[-1] // stride[-1] // 2 + 1]
    yield from (
        torch.stack(torch.meshgrid(*ranges, indexing="ij"), dim=-1).reshape(-1, len(points)).split(rows)
    )


def _responses(
    kernel: Tensor, which: Tensor, points: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Complex[Tensor, "b out in"]:
    """K̂ at the given output frequencies with their aliases side by side, one matrix a frequency and group."""
    groups, out, channels = kernel.shape[:3]
    aliases = torch.cartesian_prod(
        *(torch.arange(s, device=which.device) * (n // s) for n, s in zip(points, stride, strict=True))
    ).reshape(-1, len(points))
    taps = torch.cartesian_prod(
        *(torch.arange(k, device=which.device) * d for k, d in zip(kernel.shape[3:], dilation, strict=True))
    ).reshape(-1, len(points))
    frequencies = (which[:, None] + aliases).double()  # (f, aliases, axes)
    turns = frequencies / torch.tensor(points, dtype=torch.float64, device=which.device)
    phases = torch.exp(2j * math.pi * (turns @ taps.double().T))  # (f, aliases, taps)
    flat = kernel.reshape(groups, out, channels, -1).to(phases.dtype)
    responses = torch.einsum("fat,goit->fgoai", phases, flat) / math.sqrt(len(aliases))
    return responses.reshape(-1, out, len(aliases) * channels)


def _largest_singular_value(matrices: Tensor) -> float:
    """Over a batch (b, rows, columns), from the smaller Gram side."""
    if matrices.numel() == 0:
        return 0.0
    scale = matrices.abs().max().item()
    if scale == 0:
        return 0.0
    matrices = matrices / scale
    tall = matrices.shape[1] > matrices.shape[2]
    gram = matrices.mH @ matrices if tall else matrices @ matrices.mH
    if gram.shape[-1] <= EIGEN_SIDE:
        return scale * math.sqrt(max(0.0, torch.linalg.eigvalsh(gram).max().item()))
    return scale * math.sqrt(max(_gram_iteration(one) for one in gram))


def _gram_iteration(gram: Tensor) -> float:
    """|G^(2^j)|_F^(1/2^j) ≥ λ_max of a positive matrix G (Delattre et al. 2023), rescaled at each squaring."""
    log_scale = 0.0
    for _ in range(_GRAM_SQUARINGS):
        size = torch.linalg.matrix_norm(gram).item()
        gram = gram / size
        log_scale = 2 * (log_scale + math.log(size))
        gram = gram @ gram
    log_scale += math.log(torch.linalg.matrix_norm(gram).item())
    return math.exp(log_scale / 2**_GRAM_SQUARINGS)


def _dense(
    kernel: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Float[Tensor, "inputs outputs"]:
    """The transposed matrix of the convolution of one group: each row is the image of a unit input."""
    inputs = kernel.shape[1] * math.prod(size)
    units = torch.eye(inputs, dtype=kernel.dtype, device=kernel.device).reshape(
        inputs, kernel.shape[1], *size
    )
    convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[len(size) - 1]
    return convolve(units, kernel, None, list(stride), list(padding), list(dilation)).flatten(1)


def _each_axis(name: str, value: Sequence[int] | int, axes: int, least: int) -> list[int]:
    if axes not in (1, 2, 3):
        raise InputError(f"a kernel has shape (out, in, …) with 1 to 3 axes behind, got {axes}")
    listed = [value] * axes if isinstance(value, int) else [int(one) for one in value]
    if len(listed) == 1:
        listed = listed * axes
    if len(listed) != axes or min(listed) < least:
        raise InputError(f"{name} must be {axes} whole numbers of at least {least}, got {value}")
    return listed


def _check_finite(weight: Tensor) -> None:
    if not torch.isfinite(weight).all():
        raise InputError("weights hold NaN or infinite values, so no bound exists; check the model")
