"""The engine of one process: one shard after the other."""

from collections.abc import Callable, Iterable, Iterator

from uncannyvalley.study.task import Report, Task


class SerialEngine:
    """Does each task here and now."""

    name = "serial"

    def __init__(self, work: Callable[[Task], Report]) -> None:
        self._work = work

    def map(self, tasks: Iterable[Task]) -> Iterator[Report]:
        """The reports, in the order of the tasks."""
        return map(self._work, tasks)
