"""The cells of a study → the walks that record them, each with the plan that decides its numbers."""

from collections.abc import Iterable, Iterator

from uncannyvalley.run.request import Request, control_runs
from uncannyvalley.run.workbench import Workbench
from uncannyvalley.storing.places import Place
from uncannyvalley.study.task import ATTACK, Walk


def walks_of(request: Request, place: Place, workbench: Workbench, *, controls: bool = True) -> list[Walk]:
    """The attack of a cell and its controls, checked; loads the network and the images where they are new.

    Raises InputError for whatever the request asks for and cannot have.
    """
    plan, work = workbench.make(request)
    beside = list(control_runs(plan, work)) if controls else []
    names = tuple(name for name, _, _ in beside)
    return [
        Walk(place, ATTACK, plan, request, names),
        *(Walk(place / "controls" / name, name, control, request) for name, control, _ in beside),
    ]


def shard_total(walks: Iterable[Walk]) -> int:
    """Shards of all walks."""
    return sum(walk.plan.shard_count for walk in walks)


def attacks_of(walks: Iterable[Walk]) -> Iterator[Walk]:
    """The walks that are no controls: one for each cell."""
    return (walk for walk in walks if walk.name == ATTACK)
