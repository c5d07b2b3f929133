"""The Ray cluster that workers run on: one of our own, one joined by its address, or the one already in use here."""

import logging
import math
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

from uncannyvalley.data.packages import need
from uncannyvalley.errors import InputError, first_line

OBJECT_STORE_BYTES = 80 * 2**20
"""Ray takes no less than 75 MiB; tasks and reports travel beside it."""

_LONGEST_FOLDER = 24
"""Ray's sockets lie deep in its folder, and the path of a socket ends at 107 bytes."""

_SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # these would go to stdout, between our own lines
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|Raylet is terminated|has been marked dead",
}
_JOINING = {"RAY_gcs_server_port_wait_time_s": "2"}  # Ray tries for minutes where nobody listens


class Cluster:
    """Where actors are started; a context manager that can be entered again.

    address  ``auto``, ``host:6379`` or ``ray://host:10001`` of a cluster to join; None takes ``RAY_ADDRESS``, or else
             starts a cluster on this machine alone
    workers  None: one for each CPU, or for each share of a GPU where the cluster has GPUs
    gpus     GPUs of a worker, such as 0.25; None: 1 where there are GPUs; 0: none, and none are seen

    A Ray that the process has already initialised is used as it is and left running. A cluster of our own sends no
    usage statistics and lives no longer than the process, even if that is killed.

    Raises InputError where ray is missing, nothing answers at the address, or GPUs are asked for and there are none.
    """

    def __init__(self, address: str | None, workers: int | None, gpus: float | None) -> None:
        for name, value, least in (("workers", workers, 1), ("gpus", gpus, 0)):
            if value is not None and not (math.isfinite(value) and value >= least):
                raise InputError(f"{name} must be at least {least}, got {value}")
        with _environment(_SILENT):  # Ray reads some of it while it is imported
            self.ray: ModuleType = need("ray", "the engine 'ray'", 'pip install "uncannyvalley[ray]"')
        self._address = address or os.environ.get("RAY_ADDRESS")
        self._workers, self._gpus = workers, gpus
        self._closing = ExitStack()

    def __enter__(self) -> "Cluster":
        if self.ray.is_initialized():
            return self
        with ExitStack() as stack:
            stack.enter_context(_environment(_SILENT | _JOINING if self._address else _SILENT))
            end_orderly = stack.enter_context(_orderly_end())
            if self._address:
                stack.callback(self.ray.shutdown)
                self._join(self._address)
            else:
                folder = _short_folder()
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                stack.callback(self.ray.shutdown, wait_for_processes=True)
                self._start(folder)
            end_orderly()
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _start(self, folder: str) -> None:
        self.ray.init(
            address="local", num_cpus=self._workers or _own_cpus(), include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES, _temp_dir=folder, _node_ip_address="127.0.0.1",
            log_to_driver=False, logging_level=logging.ERROR,
        )  # fmt: skip

    def _join(self, address: str) -> None:
        try:
            self.ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
            reason = first_line(error)
            raise InputError(
                f"the Ray cluster at {address!r} cannot be joined ({reason}). Start one with 'ray start --head'; if it "
                "asks for a token, set RAY_AUTH_MODE=token. Without an address, and with RAY_ADDRESS unset, Ray runs "
                "on this machine alone"
            ) from error

    def _amount(self, resource: str) -> float:
        return float(self.ray.cluster_resources().get(resource, 0))

    @property
    def gpus(self) -> float:
        """GPUs of one worker; the cluster must be open."""
        if self._gpus is not None:
            return self._gpus
        return 1.0 if self._amount("GPU") >= 1 else 0.0

    @property
    def workers(self) -> int:
        """How many workers the cluster is asked for; it must be open."""
        if self._workers is not None:
            return self._workers
        places = self._amount("GPU") / self.gpus if self.gpus else self._amount("CPU")
        return max(1, int(places + 1e-6))

    @property
    def threads(self) -> int:
        """What each worker computes with: its equal part of the CPUs, and no more than ``OMP_NUM_THREADS``."""
        cpus = int(self._amount("CPU")) if self._address else max(int(self._amount("CPU")), _own_cpus())
        wanted = os.environ.get("OMP_NUM_THREADS", "")
        equal = max(1, cpus // self.workers)
        return min(equal, max(1, int(wanted))) if wanted.isdigit() else equal

    def employ(self, kind: type, *arguments: object) -> Callable[[], Any]:
        """A function that starts one more actor ``kind(*arguments, threads, hide_gpus, folder)``, one of ``workers``.

        An actor that dies stays dead.

        Raises InputError where GPUs are asked for on a machine without.
        """
        if self.gpus and not self._address and self._amount("GPU") < self.gpus:
            raise InputError(
                f"each worker was to have {self.gpus:g} GPUs, and Ray finds {self._amount('GPU'):g} on this machine; "
                "leave gpus out, or join a cluster that has them by its address"
            )
        share = min(1.0, math.floor(1e4 * self._amount("CPU") / self.workers) / 1e4)
        actor = self.ray.remote(kind).options(
            num_cpus=share,
            num_gpus=self.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        surroundings = self.threads, self._gpus == 0, os.getcwd()
        return lambda: actor.remote(*arguments, *surroundings)


def _own_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="uncanny-ray-", dir=folder if len(folder) <= _LONGEST_FOLDER else "/tmp")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Ray's variables, set where the user has not set them; afterwards they are what they were, Ray's own too."""
    before = _of_ray()
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in _of_ray().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _of_ray() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("RAY_") or name == "PYTHONBREAKPOINT"
    }


@contextmanager
def _orderly_end() -> Iterator[Callable[[], None]]:
    """A function to call once Ray is there, whose own handler of SIGTERM gives the process three seconds.

    Until the block ends, SIGTERM does what the user has it do, or else leaves the block as SystemExit.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    def set_handler() -> None:
        signal.signal(signal.SIGTERM, leave if before == signal.SIG_DFL else before)

    try:
        yield set_handler
    finally:
        signal.signal(signal.SIGTERM, before)
