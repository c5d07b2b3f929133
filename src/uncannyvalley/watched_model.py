"""The network that a foreign attack is given: it answers as the original does, and every call is seen."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from uncannyvalley.find_head import tensor_of
from uncannyvalley.prepare import detached_copy
from uncannyvalley.splitting import SplitModel


class WatchedModel(nn.Module):
    """A frozen copy in evaluation mode, whatever mode the attack asks for; gradients flow to the input alone.

    ``see(images, features, logits)`` is called after each forward, with what that forward computed; ``shape`` is that
    of one image.
    """

    def __init__(
        self,
        network: nn.Module,
        head: nn.Module,
        shape: torch.Size,
        see: Callable[[Tensor, Tensor, Tensor], None],
    ) -> None:
        super().__init__()
        self.network = network
        self._shape = shape
        self._see = see
        self._features: list[Tensor] = []
        head.register_forward_pre_hook(lambda _, inputs: self._features.append(inputs[0]))
        self.training = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self._features.clear()
        self.network.eval()  # an attack may have switched its modules one by one
        output = self.network(*args, **kwargs)
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        images = next((one for one in given if one.shape[1:] == self._shape), given[0])
        self._see(images, self._features.pop(), tensor_of(output))
        return output

    def train(self, mode: bool = True) -> "WatchedModel":
        """Only notes the mode: dropout and batch statistics would move every number of the walk."""
        self.training = mode
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "WatchedModel":
        """A library's copy is watched like the model itself."""
        return self


class Joined(nn.Module):
    """A SplitModel as one module again: its plain body, or the prepared one, and its head."""

    def __init__(self, model: SplitModel, *, prepared: bool) -> None:
        super().__init__()
        self.body = model.module if prepared else model.plain
        self.place = model.place
        weight, bias = model.head.weight, model.head.bias
        self.head = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        self.head.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            self.head.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(tensor_of(self.body(self.place(x))))


def watched(
    net: nn.Module | SplitModel,
    model: SplitModel,
    shape: torch.Size,
    see: Callable[[Tensor, Tensor, Tensor], None],
    *,
    prepared: bool,
) -> WatchedModel:
    """``net``, split as ``model``, with every call seen.

    A copy of the network itself, so that its outputs keep value and type; with ``prepared`` the faster equal copy, and
    that too where only the split is left.
    """
    network = net.source() if isinstance(net, SplitModel) else net
    if prepared or network is None:
        joined = Joined(model, prepared=prepared)
        return WatchedModel(joined, joined.head, shape, see)
    with torch.no_grad():
        twin = detached_copy(network).to(model.device, model.dtype)
    return WatchedModel(twin, twin.get_submodule(model.head_name), shape, see)
