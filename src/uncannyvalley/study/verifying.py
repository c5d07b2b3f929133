"""Every byte of a run or a study against what was promised: stamps, manifests, and files that must or must not be there."""

from collections.abc import Iterator
from dataclasses import dataclass

from uncannyvalley.errors import InputError
from uncannyvalley.run.folder import HEAD_FILE, RunFolder, open_run
from uncannyvalley.run.plan import PLAN_FILE, shard_name
from uncannyvalley.storing.files import SCRATCH_ENDING, sha256
from uncannyvalley.storing.manifest import Manifest, manifests_of
from uncannyvalley.storing.places import Place, place_of
from uncannyvalley.study.study_plan import StudyPlan


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was written, or not there."""

    message: str


def verify(path: "str | Place") -> list[Fault]:
    """The faults of a run's or a study's folder.

    Every file that the package wrote is read: plans and manifests (by their stamps), shards, kept images and heads (by
    stamp, and by the SHA-256 that the manifest lists), derived files (by the manifest). Shards that are missing, left
    over or another's, and scratch files of killed processes are faults too. InputError where there is no folder.
    """
    folder = place_of(path)
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; give the folder that uncanny run or record --out wrote")
    return list(_faults_of(folder))


def _faults_of(folder: Place) -> Iterator[Fault]:
    try:
        plan = StudyPlan.read(folder / PLAN_FILE)
    except InputError as error:
        yield Fault(str(error))
        return
    if plan is None:
        yield from _faults_of_run(folder, None)
        return
    for place, key in plan.cells.items():
        if (folder / place).is_dir():
            yield from _faults_of_run(folder / place, key)
        else:
            yield Fault(f"{folder / place} is missing")
    yield from _scratch(folder)
    known = {str(folder / place) for place in plan.cells}
    for found in _runs_below(folder, 0):
        if str(found) not in known:
            yield Fault(f"{found} is no run of this study")


def _runs_below(folder: Place, depth: int) -> Iterator[Place]:
    """Run folders at the depth at which a study's cells lie."""
    for one in folder.iterdir():
        if not one.is_dir() or "=" not in one.name:
            continue
        if depth == 4:
            yield one
        else:
            yield from _runs_below(one, depth + 1)


def _faults_of_run(folder: Place, key: str | None) -> Iterator[Fault]:
    try:
        run = open_run(folder)
    except InputError as error:
        yield Fault(str(error))
        return
    if key is not None and run.plan.key != key:
        yield Fault(f"{folder / PLAN_FILE} is the plan of another run than the study was planned with")
    listed = Manifest(run.plan.key)
    for block in range(run.blocks):
        yield from _faults_of_block(run, block, listed)
    for name, digest in listed.files.items():
        place = run.path / name
        try:
            if not place.exists():
                yield Fault(f"{place} is missing")
            elif sha256(place) != digest:
                yield Fault(f"{place} is damaged or was changed: its SHA-256 differs from the manifest's")
        except InputError as error:
            yield Fault(str(error))
    yield from _left_over(run, listed)
    yield from _scratch(folder)
    for name in listed.controls:
        control = run.path / "controls" / name
        if control.is_dir():
            yield from _faults_of_run(control, None)
        else:
            yield Fault(f"{control} is missing")


def _faults_of_block(run: RunFolder, block: int, listed: Manifest) -> Iterator[Fault]:
    """Those of the manifests and the shards of a block, which are then added to ``listed``."""
    here, places = Manifest(run.plan.key), manifests_of(run.path, block)
    for place in places:
        try:
            here.merge(Manifest.read(place, run.plan.key))
        except InputError as error:
            yield Fault(str(error))
    for number in run.numbers(block):
        try:
            here.shards[shard_name(number)] = run.check_shard(number, here)
        except InputError as error:
            failure = here.failed.get(shard_name(number))
            yield Fault(f"{error}: recording it failed ({failure['error']})" if failure else str(error))
    if not places and here.shards:
        yield Fault(f"{run.path} has no manifest: the command that recorded this run rebuilds it")
    listed.merge(here)


def _left_over(run: RunFolder, listed: Manifest) -> Iterator[Fault]:
    """Files among the shards and images that no plan asked for: a glob over the folder would read them."""
    with_images = {name for name, entry in listed.shards.items() if "images" in entry}
    for name, known in (("shards", run.plan.shards().keys() | set()), ("images", with_images)):
        folder = run.path / name
        for place in sorted(folder.iterdir(), key=str) if folder.is_dir() else ():
            if place.name not in known and not place.name.endswith(SCRATCH_ENDING):
                yield Fault(f"{place} is no file of this run")
    head = run.path / HEAD_FILE
    if head.exists() and not any("head" in entry for entry in listed.shards.values()):
        yield Fault(f"{head} is no file of this run")


def _scratch(folder: Place) -> Iterator[Fault]:
    """What killed processes left, here and one level below."""
    for one in sorted(folder.iterdir(), key=str):
        inside = sorted(one.iterdir(), key=str) if one.name in ("shards", "images") and one.is_dir() else ()
        for place in (one, *inside):
            if place.name.endswith(SCRATCH_ENDING):
                yield Fault(
                    f"{place} is a scratch file of a process that was killed; the same command removes it"
                )
