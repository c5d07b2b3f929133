"""A network while it learns: features and logits of one forward, and its head with live weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from uncannyvalley.errors import unknown_name
from uncannyvalley.find_head import tensor_of
from uncannyvalley.head import Head
from uncannyvalley.zoo.heads import CosineHead


class Seen(NamedTuple):
    """One forward of a network in training: features φ(x) and logits z, with their history."""

    features: Float[Tensor, "n d"]
    logits: Float[Tensor, "n k"]


class LiveNetwork(nn.Module):
    """``net`` with its head read along: x → (φ, z) in one forward, differentiable in every weight.

    ``head_name`` is the head's name among ``net.named_modules()``: an nn.Linear, or a ``CosineHead``, whose φ are the
    unit features. Nothing is copied: these are the network's own weights.

    Raises InputError for a name that is neither.
    """

    def __init__(self, net: nn.Module, head_name: str) -> None:
        super().__init__()
        heads = [name for name, one in net.named_modules() if isinstance(one, (nn.Linear, CosineHead))]
        if head_name not in heads:
            raise unknown_name("linear or cosine head", head_name, heads)
        self.net = net
        self.head_name = head_name

    @property
    def _last(self) -> nn.Linear | CosineHead:
        last = self.net.get_submodule(self.head_name)
        assert isinstance(last, (nn.Linear, CosineHead))
        return last

    def forward(self, x: Float[Tensor, "n ..."]) -> Seen:
        features: list[Tensor] = []
        last = self._last
        if isinstance(last, CosineHead):
            handle = last.unit.register_forward_hook(lambda _, inputs, output: features.append(output))
        else:
            handle = last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        try:
            logits = tensor_of(self.net(x))
        finally:
            handle.remove()
        return Seen(features[0], logits)

    @property
    def head(self) -> Head:
        """W and b as they are now, with their history; a cosine head's W has rows of one length.

        Made anew at each call, since a Head keeps what it computed from its weights.
        """
        last = self._last
        if isinstance(last, CosineHead):
            return Head(last.effective_weight, None)
        return Head(last.weight, last.bias)

    @contextmanager
    def in_evaluation(self) -> Iterator[None]:
        """Evaluation mode for the moment, so that looking at points moves no batch statistics; then as it was."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
