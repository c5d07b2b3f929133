"""Linear maps that are known but not yet measured: selections of entries, convolutions, matrices."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.theory.operator_norm import convolution_norm, matrix_norm, torus_norm

ROUND_UP = 1 + 1e-12
"""Covers the rounding of a few sums, products and roots."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Entry i is scale_i times entry index_i of the base, plus a constant.

    Indices are whole numbers held as float64, so that every operation that only moves entries can be
    run on them as it is; where it fills in a constant, index and scale are 0.
    """

    index: Float[Tensor, "..."]
    scale: Float[Tensor, "..."]

    @classmethod
    def identity(cls, shape: torch.Size, device: torch.device | None = None) -> "Selection":
        index = torch.arange(math.prod(shape), dtype=torch.float64, device=device).reshape(shape)
        return cls(index, torch.ones_like(index))

    def moved(self, how: Callable[[Tensor], Tensor]) -> "Selection":
        """Behind an operation that moves, repeats or drops entries."""
        return Selection(how(self.index), how(self.scale))

    def scaled(self, factor: Tensor) -> "Selection":
        """Times a constant, which may broadcast the entries to a larger shape."""
        return Selection(torch.broadcast_to(self.index, (self.scale * factor).shape), self.scale * factor)

    def equals(self, other: "Selection") -> bool:
        return torch.equal(self.index, other.index) and torch.equal(self.scale, other.scale)

    @property
    def is_in_place(self) -> bool:
        """Whether every entry is a multiple of the base's entry at the same place in memory order."""
        return torch.equal(
            self.index.flatten(),
            torch.arange(self.index.numel(), dtype=torch.float64, device=self.index.device),
        )


def selection_norm(parts: Sequence[Selection], entries: int) -> float:
    """Norm of the stacked selections of a base of ``entries``: their columns are orthogonal, so the longest one."""
    device = parts[0].scale.device
    lengths = torch.zeros(entries, dtype=torch.float64, device=device)
    for one in parts:
        lengths.index_add_(0, one.index.flatten().long(), one.scale.flatten().square())
    longest = lengths.max().item() if len(lengths) else 0.0
    return math.sqrt(longest) if longest in (0.0, 1.0) else math.sqrt(longest) * ROUND_UP


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution whose norm is still to be taken, zero-padded or circular; ``shape`` is that of its output, images first."""

    kernel: Float[Tensor, "out in_of_group ..."]
    input_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    shape: torch.Size
    circular: bool = False

    def norm(self) -> float:
        if self.circular:
            each = self.kernel.reshape(self.groups, -1, *self.kernel.shape[1:])
            return torus_norm(each.double(), self.input_size, self.stride, self.dilation)
        return convolution_norm(
            self.kernel, self.input_size, self.stride, self.padding, self.dilation, self.groups
        )


@dataclass(frozen=True, eq=False)
class Matrix:
    """y = W x along the last axis."""

    weight: Float[Tensor, "out in"]
    shape: torch.Size

    def norm(self) -> float:
        return matrix_norm(self.weight)


def along_axis(values: Tensor, axis: int) -> Tensor | None:
    """The values along one axis where they do not change along the others, else None."""
    first = values.movedim(axis, -1).flatten(0, -2)[0]
    shape = [1] * values.dim()
    shape[axis] = -1
    return first if bool((values == first.reshape(shape)).all()) else None
