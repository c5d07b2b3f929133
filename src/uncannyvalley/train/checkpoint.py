"""A checkpoint: everything that a training goes on from, in one file that is whole or not there.

Random numbers are keyed by (seed, epoch, example, step), so that what is kept of them is how many steps were done.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from uncannyvalley.errors import InputError
from uncannyvalley.storing.places import Place
from uncannyvalley.storing.tensors import read_tensors, write_tensors

CHECKPOINT_FILE = "checkpoint.safetensors"
FORMAT = 1


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those that a state dict leaves out too; shared ones once."""
    return dict(net.named_parameters()) | dict(net.named_buffers())


def load_weights_of(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what ``weights_of`` gave back in place."""
    with torch.no_grad():
        for name, tensor in weights_of(net).items():
            tensor.copy_(weights[name])


@dataclass
class Checkpoint:
    """Where a training is.

    key        of everything that decides its numbers
    done       steps taken
    weights    of the network, by name
    optimizer  its state dict
    schedule   where the schedule of the learning rate is
    history    rows of the epochs so far
    sums       loss and its parts summed over the steps of the epoch that is not over
    best       weights of the selected network so far; empty before the first
    seconds    that the training took until then
    """

    key: str
    done: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    history: list[dict[str, Any]]
    sums: dict[str, float]
    best: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def write(self, place: Place) -> None:
        """As one stamped file; CannotWrite where the disk refuses, the old file is then kept."""
        tensors = {f"weights/{name}": one for name, one in self.weights.items()}
        tensors |= {f"best/{name}": one for name, one in self.best.items()}
        scalars: dict[str, dict[str, Any]] = {}
        for number, entries in self.optimizer["state"].items():
            for name, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{number}/{name}"] = value
                else:
                    scalars.setdefault(str(number), {})[name] = value
        state = {
            "format": FORMAT, "key": self.key, "done": self.done, "history": self.history, "sums": self.sums, "seconds": self.seconds,
            "schedule": self.schedule, "groups": self.optimizer["param_groups"], "scalars": scalars,
        }  # fmt: skip
        write_tensors(place, tensors, state)

    @classmethod
    def read(cls, place: Place, key: str) -> "Checkpoint":
        """Raises InputError for a file that cannot be read, was damaged, or belongs to another training."""
        state, tensors = read_tensors(
            place,
            format=FORMAT,
            damaged="is damaged: its content and the SHA-256 in it disagree. Put a copy in its place, or begin anew: delete "
            "the file, or give overwrite (--overwrite)",
            outdated="begin anew: give overwrite (--overwrite)",
        )
        if state["key"] != key:
            raise InputError(
                f"{place} belongs to another training than the plan beside it; give overwrite (--overwrite)"
            )
        return cls._of(state, tensors)

    @classmethod
    def _of(cls, state: dict[str, Any], tensors: dict[str, Tensor]) -> "Checkpoint":
        kept: dict[int, dict[str, Any]] = {int(number): one for number, one in state["scalars"].items()}
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "best": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            if part == "optimizer":
                number, _, entry = rest.partition("/")
                kept.setdefault(int(number), {})[entry] = tensor
            else:
                parts[part][rest] = tensor
        groups = [{name: _tuple(value) for name, value in one.items()} for one in state["groups"]]
        optimizer = {"state": kept, "param_groups": groups}
        return cls(
            state["key"], state["done"], parts["weights"], optimizer, state["schedule"], state["history"],
            state["sums"], parts["best"], state["seconds"],
        )  # fmt: skip


def _tuple(value: Any) -> Any:
    """Pairs of numbers, which JSON knows as lists; a group's parameters are a list of whole numbers."""
    if isinstance(value, list) and value and all(isinstance(one, float) for one in value):
        return tuple(value)
    return value
