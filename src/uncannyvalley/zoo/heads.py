"""The cosine head: logits are a scale times the cosine between features and the row of each class.

With unit features u = φ/|φ| it is the linear head z = W u of rows w_s of one length, the scale, so everything that is
known about linear heads holds for it. Its logits lie within ± scale and it has no bias (Wang et al. 2018, CosFace,
arXiv 1801.09414, without the margin; Gidaris and Komodakis 2018, arXiv 1804.09458).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from uncannyvalley.checks import is_number
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.prepare import detached_copy, replace_module

COSINE_SCALE = 10.0
"""Logits between −10 and 10 nats: the most confident softmax over 10 classes has p = 1 − 2e-8."""


def unit_rows(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """v/|v|, row by row; rows that are all 0 stay 0."""
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / torch.where(length > 0, length, 1.0)


class UnitFeatures(nn.Module):
    """φ → φ/|φ|; features that are all 0 stay 0."""

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return unit_rows(features)


class CosineHead(nn.Module):
    """z_s = scale · cos(φ, w_s). What is learned is ``weight`` (k, d), of whose rows only the directions count.

    The child ``unit`` makes the unit features: its output is the φ that ``effective_weight`` is the linear head of.
    """

    def __init__(self, features: int, classes: int, scale: float = COSINE_SCALE) -> None:
        super().__init__()
        if not (is_number(scale) and scale > 0):
            raise InputError(
                f"the scale of a cosine head must be a finite number above 0, in nats; got {scale!r}"
            )
        self.scale = float(scale)
        self.unit = UnitFeatures()
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.bias = None
        nn.init.normal_(self.weight)  # directions uniform on the sphere

    @property
    def effective_weight(self) -> Float[Tensor, "k d"]:
        """Rows scale · w_s/|w_s|, differentiable in ``weight``."""
        return self.scale * unit_rows(self.weight)

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        return nn.functional.linear(self.unit(features), self.effective_weight)

    def extra_repr(self) -> str:
        classes, features = self.weight.shape
        return f"{features}, {classes}, scale={self.scale:g}"


def with_cosine_head(net: nn.Module, head_name: str, scale: float = COSINE_SCALE) -> nn.Module:
    """``net`` with a new cosine head where its nn.Linear ``head_name`` was; changed in place, returned for a head that is
    the whole network.

    The head's directions are drawn from torch's generator; number type and device are those of the linear layer.
    Raises InputError for a name that is no nn.Linear of the network and for a scale not above 0.
    """
    linears = {name: one for name, one in net.named_modules() if isinstance(one, nn.Linear)}
    if head_name not in linears:
        raise unknown_name("linear layer", head_name, linears)
    linear = linears[head_name]
    head = CosineHead(linear.in_features, linear.out_features, scale)
    return replace_module(net, linear, head.to(linear.weight).train(linear.training))


def plain_heads(net: nn.Module) -> nn.Module:
    """A frozen copy of ``net`` in which each ``CosineHead`` is unit features followed by a plain nn.Linear without bias.

    The same function, in the form that ``split`` and every other program understands. Names of its weights: HEAD.1.weight.
    """
    twin = detached_copy(net)
    for head in [one for one in twin.modules() if isinstance(one, CosineHead)]:
        classes, features = head.weight.shape
        linear = nn.Linear(features, classes, bias=False).to(head.weight)
        linear.weight = nn.Parameter(head.effective_weight.detach().clone(), requires_grad=False)
        plain = nn.Sequential(UnitFeatures(), linear).train(head.training)
        twin = replace_module(twin, head, plain)
    return twin
