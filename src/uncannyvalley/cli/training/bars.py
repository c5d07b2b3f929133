"""The progress of trainings in a terminal: steps of the one that runs with its losses, and how many are done."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from uncannyvalley.cli.printing import aside

Steps = Callable[[int, int, Mapping[str, float]], None]
"""Steps done, steps in all, losses of the last."""

SHOWN = 4
"""Up to so many losses are shown."""


class Bars:
    """One bar for the steps of the training that runs, and one for all trainings where they are several."""

    def __init__(self, progress: Progress, trainings: int) -> None:
        self._progress = progress
        self._all: TaskID | None = None
        if trainings > 1:
            self._all = progress.add_task("trainings", total=trainings, losses="")

    def start(self, name: str) -> tuple[Steps, Callable[[], None]]:
        """A bar for one training: what takes its progress, and what ends it."""
        task = self._progress.add_task(name, total=None, losses="")

        def steps(done: int, total: int, losses: Mapping[str, float]) -> None:
            self._progress.update(task, completed=done, total=total, losses=_words(losses))

        def end() -> None:
            self._progress.remove_task(task)
            if self._all is not None:
                self._progress.advance(self._all)

        return steps, end


def _words(losses: Mapping[str, float]) -> str:
    """The base loss and its parts; the total only where it differs."""
    shown = {name: value for name, value in losses.items() if name != "total"} or losses
    return "  ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in list(shown.items())[:SHOWN])


@contextmanager
def training_bars(quiet: bool, trainings: int) -> Iterator[Bars | None]:
    """Bars on standard error; None where nothing should be shown."""
    if quiet:
        yield None
        return
    columns = (
        TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )  # fmt: skip
    with Progress(*columns, console=aside) as progress:
        yield Bars(progress, trainings)
