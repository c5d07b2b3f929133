"""Lightning Fabric as the engine: devices, number types, processes and loggers.

Several devices train with data parallelism, a process each. ``fit`` starts them itself by Fabric's launcher "ddp_spawn": the
training is sent to new processes, of which the first sends the network back, so that ``fit`` returns once, in the
process that called it, and may be called again. Fabric's "ddp" would run the whole script of the caller once more in
each process, with everything that stands before and behind ``fit``, and cannot tell two calls in a script apart. Where
torchrun has started the processes already, they are used.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from uncannyvalley.errors import InputError, first_line, unknown_name
from uncannyvalley.storing.places import Place

LOGGERS = ("csv", "tensorboard")

PATIENCE = timedelta(days=7)
"""How long processes wait for the first one, which looks at the validation images; a process that dies ends all."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without Fabric's announcements."""
    log = logging.getLogger("lightning_fabric")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


class QuietDDP(DDPStrategy):
    """Data parallelism that does not announce itself in each process."""

    def setup_environment(self) -> None:
        with quiet():
            super().setup_environment()


def started_outside() -> int:
    """Processes that torchrun started, this one among them; 0 where it did not."""
    return int(os.environ["WORLD_SIZE"]) if TorchElasticEnvironment.detect() else 0


def make_fabric(accelerator: str, devices: int, precision: str, loggers: Sequence[Any] = ()) -> Fabric:
    """Fabric for so many devices, one process each; InputError where they are not to be had."""
    outside = started_outside()
    if outside and outside != devices:
        raise InputError(
            f"torchrun started {outside} processes, but devices={devices}; give devices={outside}, or start without it"
        )
    options: dict[str, Any] = {} if outside else {"plugins": [LightningEnvironment()]}
    if devices > 1:
        options["strategy"] = QuietDDP(timeout=PATIENCE, start_method="popen" if outside else "spawn")
    nodes = outside // int(os.environ["LOCAL_WORLD_SIZE"]) if outside else 1
    try:
        return Fabric(
            accelerator=accelerator, devices=devices // nodes, num_nodes=nodes, precision=precision,  # type: ignore[arg-type]
            loggers=list(loggers), **options,
        )  # fmt: skip
    except (
        Exception
    ) as error:  # Fabric refuses with its own MisconfigurationException, ValueError and RuntimeError
        raise InputError(
            f"cannot train on accelerator={accelerator!r}, devices={devices}: {first_line(error)}"
        ) from error


def check_world(fabric: Fabric, devices: int) -> None:
    """Raise InputError unless as many processes train together as were asked for.

    Launchers have been seen to run one process where two were asked for, without a word.
    """
    distributed = torch.distributed
    together = (
        distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    )
    if fabric.world_size != devices or together != devices:
        raise InputError(
            f"{devices} processes were to train together, but {min(together, fabric.world_size)} do; start them by "
            f"torchrun --nproc-per-node {devices}, or let fit start them"
        )


def make_loggers(loggers: Sequence[Any], out: Place | None) -> list[Any]:
    """Fabric's loggers by name ("csv", "tensorboard"), or as they were given; named ones write into ``out``/loggers."""
    return [_logger(one, out) if isinstance(one, str) else one for one in loggers]


def _logger(name: str, out: Place | None) -> Any:
    from lightning_fabric.loggers import CSVLogger, TensorBoardLogger

    if name not in LOGGERS:
        raise unknown_name("logger", name, LOGGERS)
    if out is None:
        raise InputError(
            f"the logger {name!r} writes into the folder of the training: give out, or a logger of yours"
        )
    folder = str(out / "loggers")
    try:
        if name == "csv":
            return CSVLogger(folder, name=name, version="")
        return TensorBoardLogger(folder, name=name, version="")
    except ModuleNotFoundError as error:
        raise InputError("the logger 'tensorboard' needs tensorboard: pip install tensorboard") from error
