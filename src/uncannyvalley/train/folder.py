"""The folder of a training: plan, checkpoint, selected network and log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from uncannyvalley.errors import InputError
from uncannyvalley.storing.files import cannot_write, remove_scratch, write_bytes
from uncannyvalley.storing.places import Place
from uncannyvalley.train.checkpoint import CHECKPOINT_FILE, Checkpoint
from uncannyvalley.train.history import LOG_FILE, as_csv, write_log
from uncannyvalley.train.plan import PLAN_FILE, TrainingPlan
from uncannyvalley.zoo.fitted import NETWORK_FILE, Origin, read_fitted, save_fitted
from uncannyvalley.zoo.heads import plain_heads
from uncannyvalley.zoo.weights import fingerprint

FILES = (CHECKPOINT_FILE, NETWORK_FILE, LOG_FILE, PLAN_FILE)
"""What a training writes, in the order in which beginning anew removes it: the plan last, so that it can be told again."""


class TrainingFolder:
    """Where a training is kept. The caller holds its lock."""

    def __init__(
        self, path: Place, plan: TrainingPlan, origin: Origin | None, about: Mapping[str, str]
    ) -> None:
        self.path = path
        self._plan = plan
        self._origin = origin
        self._about = about

    def open(self, overwrite: bool) -> None:
        """Begin, or go on; InputError where the folder holds another training, or anything else."""
        if isinstance(self.path, Path):
            remove_scratch(self.path)
        if overwrite:
            self._clear()
        place = self.path / PLAN_FILE
        if place.exists():
            self._plan.check_same(place)
        elif found := [name for name in FILES if (self.path / name).exists()]:
            raise InputError(
                f"{self.path} holds {', '.join(found)} without a {PLAN_FILE} that says of what; choose another folder, "
                "or give overwrite (--overwrite) to begin anew"
            )
        else:
            write_bytes(place, self._plan.to_bytes())

    def _clear(self) -> None:
        try:
            for name in FILES:
                if (self.path / name).exists():
                    (self.path / name).unlink()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def checkpoint(self) -> Checkpoint | None:
        """Where the training is; None before the first checkpoint."""
        place = self.path / CHECKPOINT_FILE
        return Checkpoint.read(place, self._plan.key) if place.exists() else None

    def keep(self, checkpoint: Checkpoint) -> None:
        checkpoint.write(self.path / CHECKPOINT_FILE)

    def log(self, history: list[dict[str, Any]]) -> None:
        """Write the log, unless it says so already."""
        place = self.path / LOG_FILE
        if not place.exists() or place.read_bytes() != as_csv(history).encode():
            write_log(place, history)

    def save_network(self, net: nn.Module) -> None:
        """Write the selected network, unless it lies here already, whole."""
        place = self.path / NETWORK_FILE
        try:
            if read_fitted(place).fingerprint == fingerprint(plain_heads(net)):
                return
        except InputError:  # not there, or damaged
            pass
        save_fitted(place, net, self._origin, self._about)
