"""What runs in a worker's process; imports nothing heavy, so that the number of threads is set before torch is there."""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What came of a task: the pickled report, or the reason why there is none; and the seconds it took."""

    report: bytes | None
    reason: str
    seconds: float


class Actor:
    """A worker's process: everything that goes wrong in it is an answer, short of its death.

    make_worker  pickled; what it gives turns a task into its report
    threads      of torch and the libraries below it
    hide_gpus    whether the machine's GPUs are kept from it
    folder       what relative paths begin at, where the machine has it
    """

    def __init__(self, make_worker: bytes, threads: int, hide_gpus: bool, folder: str) -> None:
        self._make_worker, self._threads = make_worker, threads
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
        if hide_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        with contextlib.suppress(OSError):
            os.chdir(folder)

    def start(self) -> str | None:
        """Load what the worker needs; the reason where that failed."""
        from ray import cloudpickle

        try:
            self._work: Callable[[Any], Any] = cloudpickle.loads(self._make_worker)()
        except (Exception, SystemExit) as error:
            return in_words(error)
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(self._threads)  # what was imported before this process heard of it
        return None

    def do(self, task: bytes) -> Answer:
        """The pickled report, or the reason why there is none."""
        from ray import cloudpickle

        began = time.perf_counter()
        try:
            report = cloudpickle.dumps(self._work(cloudpickle.loads(task)))
        except (Exception, SystemExit) as error:
            return Answer(None, in_words(error), time.perf_counter() - began)
        return Answer(report, "", time.perf_counter() - began)


def in_words(error: BaseException) -> str:
    """Type and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
