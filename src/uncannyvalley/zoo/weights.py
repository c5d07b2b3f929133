"""Weights: read from files without running anything in them, matched strictly, and fingerprinted."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uncannyvalley.errors import InputError

WRAPPINGS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts keep the state dict of the network."""

PREFIXES = ("module.", "_orig_mod.", "net.")
"""What DataParallel, torch.compile and the input transform of this room write in front of every key."""

_SHOWN = 4
"""Keys that an error lists of each sort."""


def load_weights(net: nn.Module, file: str | Path) -> None:
    """Copy the weights of ``file`` (.safetensors, or .pt and .pth of torch.save) into ``net``, in place.

    A state dict may lie under ``state_dict``, ``model_state_dict``, ``model`` or ``net``, and its keys may carry
    the prefixes of DataParallel and torch.compile. Pickles are read as weights only: nothing in them runs.

    Raises InputError for files that are missing, broken or hold anything but tensors, and lists the keys that are
    missing, not expected or of another shape; ``net`` is then as it was.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"weights file {str(file)!r} does not exist; check the path")
    own = net.state_dict()
    state = _without_prefixes(_unwrapped(_read(path), path.name), own)
    if differences := _differences(own, state):
        raise InputError(f"the weights of {path.name} do not fit the model: {'; '.join(differences)}")
    net.load_state_dict(state)


def _read(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path.name} cannot be read as safetensors ({error}); fetch it again"
            ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling foreign bytes fails as many types
        raise InputError(
            f"{path.name} cannot be read as weights ({type(error).__name__}): it is broken, or holds more than "
            "tensors, which could run code and was not loaded. Save the weights alone: "
            "torch.save(net.state_dict(), path), or safetensors"
        ) from error


def _unwrapped(found: Any, name: str) -> dict[str, Tensor]:
    """The state dict inside what a training script saved."""
    while isinstance(found, Mapping):
        inside = next((found[key] for key in WRAPPINGS if isinstance(found.get(key), Mapping)), None)
        if inside is None:
            break
        found = inside
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{name} holds no state dict but {type(found).__name__}; save net.state_dict()")
    others = [str(key) for key, value in found.items() if not isinstance(value, Tensor)]
    if others:
        raise InputError(
            f"{name} holds more than tensors ({_listed(others)}), and no state dict under "
            f"{', '.join(WRAPPINGS)}; save net.state_dict()"
        )
    return {str(key): value for key, value in found.items()}


def _without_prefixes(state: dict[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    """Without the prefixes that all keys share, unless the network's own keys carry them."""
    while prefix := next((one for one in PREFIXES if all(key.startswith(one) for key in state)), None):
        if any(key.startswith(prefix) for key in own):
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _differences(own: Mapping[str, Any], state: Mapping[str, Tensor]) -> list[str]:
    """Missing, unexpected and misshaped keys, in words."""
    # files from before torch 0.4.1 lack these counters, which play no part in evaluation
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    misshaped = [
        f"{key} {tuple(state[key].shape)} where the model has {tuple(value.shape)}"
        for key, value in own.items()
        if isinstance(value, Tensor) and key in state and state[key].shape != value.shape
    ]
    sorts = (("missing", missing), ("not expected", unexpected), ("of another shape", misshaped))
    return [f"{len(keys)} {sort} ({_listed(keys)})" for sort, keys in sorts if keys]


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")


def fingerprint(net: nn.Module) -> str:
    """SHA-256 over the modules' description and every parameter and buffer, saved or not."""
    digest = hashlib.sha256(str(net).encode())
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
