"""The engine of many processes and machines: workers are Ray actors, and one that dies is replaced."""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from uncannyvalley.errors import InputError
from uncannyvalley.study.engines.ray_actor import Actor, Answer, in_words
from uncannyvalley.study.engines.ray_cluster import Cluster

T = TypeVar("T")
R = TypeVar("R")

QUICK_SECONDS = 0.5
"""A worker that needs less for a task has the next one waiting beside it; else waiting would only unbalance the end."""

PATIENCE_SECONDS = 30.0
"""After which somebody who waits for a full cluster is told so."""

_log = logging.getLogger(__name__)


class RayEngine(Generic[T, R]):
    """Does tasks in the processes of a Ray cluster, at most two for each worker at a time.

    make_worker  called once in each worker; what it gives turns a task into its report. Both travel pickled
    lost         the report about a task that could not be done, from the task and the reason
    workers, address, gpus  of the cluster: see ``Cluster``
    restarts     how often a task is begun again whose worker died over it, and a worker that dies while it starts

    A task is lost when its worker died ``restarts`` + 1 times over it, when it or its report cannot be pickled, when
    the worker raises, and when no worker is left because ``make_worker`` raises in all of them. One whose
    ``make_worker`` raises is not asked again, so that a machine without the files does not use up the tasks.

    Raises InputError where there is no cluster: see ``Cluster``.
    """

    name = "ray"

    def __init__(
        self,
        make_worker: Callable[[], Callable[[T], R]],
        lost: Callable[[T, str], R],
        *,
        workers: int | None = None,
        address: str | None = None,
        gpus: float | None = None,
        restarts: int = 3,
    ) -> None:
        self._make_worker, self._lost, self._restarts = make_worker, lost, restarts
        self._cluster = Cluster(address, workers, gpus)

    def map(self, tasks: Iterable[T]) -> Iterator[R]:
        """A report for each task, as they come; ``tasks`` are drawn as there is room for them.

        The cluster is joined or started at the first report asked for, and left when the last one is given, or
        when the generator is closed. Without tasks there is no cluster.
        """
        source = iter(tasks)
        first = list(itertools.islice(source, 1))
        if not first:
            return
        with self._cluster as cluster:
            packed = cluster.ray.cloudpickle.dumps(self._make_worker)
            crew = _Crew(cluster, packed, itertools.chain(first, source), self._lost, self._restarts)
            yield from crew.work()


@dataclass
class _Job(Generic[T]):
    task: T
    deaths: int = 0  # of workers that had nothing else
    alone: bool = False  # some worker died that had it among others, so it may be why


@dataclass(eq=False)
class _Seat(Generic[T]):
    """One worker, and what it was given, in this order."""

    actor: Any
    starting: Any
    jobs: dict[Any, _Job[T]] = field(default_factory=dict)
    room: int = 0
    deaths: int = 0  # while it started

    @property
    def pending(self) -> list[Any]:
        return list(self.jobs) if self.starting is None else [self.starting]


class _Crew(Generic[T, R]):
    """The workers of one call, and the tasks they have."""

    def __init__(
        self,
        cluster: Cluster,
        make_worker: bytes,
        tasks: Iterator[T],
        lost: Callable[[T, str], R],
        restarts: int,
    ) -> None:
        self._ray = cluster.ray
        self._new_actor = cluster.employ(Actor, make_worker)
        self._tasks, self._lost, self._restarts = tasks, lost, restarts
        self._waiting = deque(_Job(task) for task in itertools.islice(tasks, cluster.workers))
        self._out: deque[R] = deque()
        self._seats: list[_Seat[T]] = []
        self._reason = ""  # why there is nobody left

    def work(self) -> Iterator[R]:
        """The reports; all workers are ended afterwards, however it ends."""
        try:
            for _ in range(len(self._waiting)):
                self._seat()
            while self._hand_out():
                self._take_answers()
                self._hand_out()  # nobody rests while the reports are read
                while self._out:
                    yield self._out.popleft()
        finally:
            for seat in self._seats:
                self._ray.kill(seat.actor)

    def _seat(self, deaths: int = 0) -> None:
        actor = self._new_actor()
        self._seats.append(_Seat(actor, actor.start.remote(), deaths=deaths))

    def _hand_out(self) -> bool:
        """One task for each worker before anyone gets a second; whether there is anything left to do."""
        for held in range(2):
            for seat in self._seats:
                if len(seat.jobs) <= held < seat.room and self._draw() and self._may_join(seat):
                    self._give(seat, self._waiting.popleft())
        if not self._seats and not self._out and self._draw():
            self._out.append(self._lost(self._waiting.popleft().task, self._reason))
        return bool(self._out) or any(seat.jobs for seat in self._seats) or self._draw()

    def _may_join(self, seat: _Seat[T]) -> bool:
        """Whether the next task may go to ``seat``: one that may be deadly has no other beside it."""
        return not seat.jobs or not any(job.alone for job in (self._waiting[0], *seat.jobs.values()))

    def _draw(self) -> bool:
        """Whether a task is waiting; one is drawn if none was."""
        if not self._waiting:
            self._waiting.extend(_Job(task) for task in itertools.islice(self._tasks, 1))
        return bool(self._waiting)

    def _give(self, seat: _Seat[T], job: _Job[T]) -> None:
        try:
            packed = self._ray.cloudpickle.dumps(job.task)
        except Exception as error:  # whatever the task holds may raise
            self._out.append(self._lost(job.task, in_words(error)))
        else:
            seat.jobs[seat.actor.do.remote(packed)] = job

    def _take_answers(self) -> None:
        """Wait for an answer; with many workers, take some more that are there."""
        pending = {answer: seat for seat in self._seats for answer in seat.pending}
        if self._out or not pending:
            return
        answers = list(pending)
        found, rest = self._ray.wait(answers, num_returns=1, timeout=PATIENCE_SECONDS)
        if not found:
            self._look_why_nothing_comes()
        if found and (more := min(len(rest), len(self._seats) // 8)):
            found += self._ray.wait(rest, num_returns=more, timeout=0)[0]
        for answer in found:
            seat = pending[answer]
            if seat in self._seats and answer in seat.pending:
                self._take(seat, answer)

    def _take(self, seat: _Seat[T], answer: Any) -> None:
        try:
            found = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            self._replace(seat, _cause(error))
            return
        if seat.starting is None:
            self._finish(seat.jobs.pop(answer), found)
            seat.room = 2 if found.seconds < QUICK_SECONDS else 1
        elif found is None:
            seat.starting, seat.room = None, 1
        else:
            self._dismiss(seat, found)

    def _finish(self, job: _Job[T], answer: Answer) -> None:
        reason = answer.reason
        if answer.report is not None:
            try:
                self._out.append(self._ray.cloudpickle.loads(answer.report))
                return
            except Exception as error:
                reason = in_words(error)
        self._out.append(self._lost(job.task, reason))

    def _replace(self, seat: _Seat[T], reason: str) -> None:
        """Another worker for one that died; it gets up to date with the tasks that the dead one left."""
        self._ray.kill(seat.actor)  # where it only could not be reached
        if seat.starting is not None and seat.deaths >= self._restarts:
            self._dismiss(seat, f"it died {seat.deaths + 1} times while it started: {reason}")
            return
        self._seats.remove(seat)
        left: list[_Job[T]] = []
        for answer, job in seat.jobs.items():
            try:
                self._finish(job, self._ray.get(answer, timeout=PATIENCE_SECONDS))
            except self._ray.exceptions.RayError:
                left.append(job)
        for job in left:
            job.alone = True
        if len(left) == 1:  # of two, either may be why: the first one's report may have died with the worker
            left[0].deaths += 1
            if left[0].deaths > self._restarts:
                job = left.pop()
                self._out.append(self._lost(job.task, f"{job.deaths} workers died over it: {reason}"))
        self._waiting.extendleft(reversed(left))
        self._seat(0 if seat.starting is None else seat.deaths + 1)

    def _dismiss(self, seat: _Seat[T], reason: str) -> None:
        """Go on without a worker that cannot start."""
        self._seats.remove(seat)
        self._ray.kill(seat.actor)
        self._reason = f"no worker could start: {reason}"
        if self._seats:
            _log.warning("one worker could not start, the others go on: %s", reason)

    def _look_why_nothing_comes(self) -> None:
        if any(seat.starting is None for seat in self._seats):
            return
        if not any(node["Alive"] for node in self._ray.nodes()):
            raise InputError(
                "no machine of the Ray cluster is alive any more; the same command goes on from here"
            )
        _log.warning("no worker has started yet: the Ray cluster has no room, or is slow")


def _cause(error: Exception) -> str:
    """What Ray knows of a death, without its advice."""
    text = " ".join(str(error).split())
    return text.rpartition("Worker exit detail: ")[2].partition(" Some common causes")[0][:300]
