"""Which linear layer is the head, and why another network has none that can be measured."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from uncannyvalley.errors import InputError, unknown_name


def tensor_of(output: object) -> Tensor:
    """The tensor a network returned, directly or as ``.logits``."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the model must return a tensor of logits, or an object with .logits; got {type(output).__name__}. "
            "Wrap it in an nn.Module that returns the logits alone"
        )
    return logits


def find_head(net: nn.Module, rows: Tensor, wanted: str | None) -> tuple[str, nn.Linear]:
    """The linear layer whose output is the network's output, with its name."""
    calls: list[tuple[nn.Linear, Tensor]] = []
    linears = {m: name for name, m in net.named_modules() if isinstance(m, nn.Linear)}
    handles = [m.register_forward_hook(lambda m, _, out: calls.append((m, out))) for m in linears]
    try:
        with torch.no_grad():
            logits = tensor_of(net(rows))
    finally:
        for handle in handles:
            handle.remove()
    called = [linears[module] for module, _ in calls]
    if wanted is not None:
        if wanted not in called:
            known = called or ["(no nn.Linear was called)"]
            raise unknown_name("head", wanted, known)
        chosen = next(module for module, _ in calls if linears[module] == wanted)
    elif not calls:
        raise InputError(
            "the model has no linear head: no nn.Linear was called. Sharpness is measured at a last layer "
            "z = W φ + b; make the last layer an nn.Linear (a 1x1 convolution after pooling is the same map)"
        )
    else:
        chosen = next((m for m, out in reversed(calls) if out is logits), calls[-1][0])
    name = linears[chosen]
    _check_head(name, chosen, [out for module, out in calls if module is chosen], logits)
    return name, chosen


def _check_head(name: str, head: nn.Linear, outputs: list[Tensor], logits: Tensor) -> None:
    shown = f"the head {name!r}" if name else "the model, a single nn.Linear,"
    if len(outputs) > 1:
        raise InputError(
            f"{shown} is called {len(outputs)} times in one forward: its weights then act at several places, and "
            "the closed forms do not hold. Give the model a head that is called once"
        )
    if parametrize.is_parametrized(head) or "weight" not in head._parameters:
        raise InputError(
            f"{shown} is parametrised (its weight is computed from other tensors). Bake it in: "
            "torch.nn.utils.parametrize.remove_parametrizations(head, 'weight'), or remove_weight_norm"
        )
    if outputs[0] is not logits:
        raise InputError(f"{shown} does not give the model's output: {_what_follows(outputs[0], logits)}")
    if head.out_features < 2:
        raise InputError(f"{shown} has {head.out_features} output; at least 2 classes are needed")


def _what_follows(output: Tensor, logits: Tensor) -> str:
    """A guess at what stands behind the head, with the mend."""
    if output.shape == logits.shape:
        ones = torch.ones(len(logits), dtype=torch.float64, device=logits.device)
        exact = logits.double()
        if bool((exact >= 0).all()) and torch.allclose(exact.sum(dim=1), ones, atol=1e-3):
            return "it returns probabilities (rows sum to 1). Remove the softmax; logits are needed"
        if torch.allclose(exact.exp().sum(dim=1), ones, atol=1e-3):
            return "it returns log-probabilities. Remove the log-softmax; logits are needed"
    if output.numel() == logits.numel() and torch.equal(output.flatten(), logits.flatten()):
        return "its output is squeezed, reshaped or copied afterwards. Return the head's output itself"
    return (
        "more operations follow it (scaling, averaging of several heads, an activation). Move a scale into the "
        "weights, or name the right layer with head="
    )
