"""What is known of one tensor of the traced graph: a linear map, not yet measured, of a tensor with a known bound.

Linear maps are kept as long as they can be merged: a normalisation of the input goes into the kernel of
the convolution behind it, batch norm into the convolution before it, slices and scales into one selection.
Only what is left is measured, because the norm of a product is at most, and often far below, the product of norms.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from uncannyvalley.theory.linear_maps import (
    Convolution,
    Matrix,
    Selection,
    along_axis,
    selection_norm,
)


@dataclass
class Ledger:
    """The factors met on the way, for the reader."""

    factors: list[tuple[str, float]] = field(default_factory=list)

    def note(self, name: str, factor: float) -> None:
        if factor != 1:
            self.factors.append((name, factor))


@dataclass(frozen=True)
class Half:
    """What a tensor has kept of its ``sources``, where another half keeps the rest (see ``joining``).

    kind is max, min (of two sources, or along ``axes`` of one) or relu.
    """

    kind: str
    sources: "tuple[Flow, ...]"
    axes: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Base:
    """A tensor of ``shape`` (images first) that is a ``lipschitz``-Lipschitz function of the image."""

    lipschitz: float
    shape: torch.Size
    half: Half | None = None

    @property
    def entries(self) -> int:
        return math.prod(self.shape)


class Flow:
    """``linear`` of ``base``, plus a constant: one object for each tensor of the graph that differs in value.

    ``name`` is the operation that the norm of ``linear`` is charged to.
    """

    def __init__(
        self, base: Base, linear: Selection | Convolution | Matrix, name: str, ledger: Ledger
    ) -> None:
        self.base, self.linear, self.name, self.ledger = base, linear, name, ledger
        self.negative_of: Flow | None = None
        self.wraps: Flow | None = None  # circular padding of that flow
        self._settled: Base | None = None

    @classmethod
    def start(cls, base: Base, name: str, ledger: Ledger, device: torch.device) -> "Flow":
        return cls(base, Selection.identity(base.shape, device), name, ledger)

    @property
    def shape(self) -> torch.Size:
        return self.linear.scale.shape if isinstance(self.linear, Selection) else self.linear.shape

    @property
    def device(self) -> torch.device:
        held = self.linear
        if isinstance(held, Selection):
            return held.scale.device
        return held.kernel.device if isinstance(held, Convolution) else held.weight.device

    def settled(self) -> Base:
        """This tensor as a base: the linear map is measured now, once."""
        if self._settled is None:
            linear = self.linear
            if isinstance(linear, Selection):
                if linear.is_in_place and bool((linear.scale == 1).all()) and self.shape == self.base.shape:
                    return self.base
                norm = selection_norm([linear], self.base.entries)
            else:
                norm = linear.norm()
            self.ledger.note(self.name, norm)
            self._settled = Base(norm * self.base.lipschitz, self.shape)
        return self._settled

    @property
    def lipschitz(self) -> float:
        return self.settled().lipschitz

    def selected(self) -> "tuple[Base, Selection]":
        """Base and selection; a convolution or matrix is measured for it."""
        if isinstance(self.linear, Selection):
            return self.base, self.linear
        return self.settled(), Selection.identity(self.shape, self.device)

    def with_linear(self, linear: Selection | Convolution | Matrix, name: str) -> "Flow":
        return Flow(self.base, linear, name, self.ledger)

    def moved(self, how: Callable[[Tensor], Tensor], name: str) -> "Flow":
        """Behind an operation that only moves entries."""
        base, selection = self.selected()
        return Flow(base, selection.moved(how), name, self.ledger)

    def times(self, factor: Tensor, name: str) -> "Flow":
        """Times a constant: into the kernel or the weight where it is one factor a channel."""
        linear = self.linear
        shape = torch.broadcast_shapes(self.shape, factor.shape)
        if not isinstance(linear, Selection) and shape == self.shape:
            axis = 1 if isinstance(linear, Convolution) else len(shape) - 1
            channels = along_axis(factor.broadcast_to(shape), axis)
            if channels is not None and isinstance(linear, Convolution):
                kernel = linear.kernel * channels.reshape(-1, *[1] * (linear.kernel.dim() - 1))
                merged = replace(linear, kernel=kernel)
                return self.with_linear(merged, self.name)
            if channels is not None and isinstance(linear, Matrix):
                return self.with_linear(Matrix(linear.weight * channels[:, None], shape), self.name)
        base, selection = self.selected()
        return Flow(base, selection.scaled(factor), name, self.ledger)

    def channel_scale(self, axis: int) -> Tensor | None:
        """The factors along ``axis`` where this is the base times one factor a channel, else None."""
        linear = self.linear
        if isinstance(linear, Selection) and linear.is_in_place:
            return along_axis(linear.scale, axis)
        return None

    def stretched(self, factor: float, name: str, shape: torch.Size, half: Half | None = None) -> "Flow":
        """Behind a ``factor``-Lipschitz operation."""
        before = self.lipschitz
        self.ledger.note(name, factor)
        return Flow.start(Base(before * factor, shape, half), name, self.ledger, self.device)
