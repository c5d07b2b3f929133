"""Every byte of trainings against what was promised; of runs and studies too, so that one call knows all folders."""

from collections.abc import Iterator
from pathlib import Path

from uncannyvalley.errors import InputError
from uncannyvalley.storing.files import SCRATCH_ENDING
from uncannyvalley.storing.places import Place, place_of
from uncannyvalley.study import verifying
from uncannyvalley.study.verifying import Fault
from uncannyvalley.train.checkpoint import CHECKPOINT_FILE, Checkpoint
from uncannyvalley.train.history import LOG_FILE, as_csv, read_log
from uncannyvalley.train.plan import PLAN_FILE, read_plan, trainings_in
from uncannyvalley.zoo.fitted import NETWORK_FILE, read_fitted


def verify(path: "str | Place") -> list[Fault]:
    """The faults of a folder that a run, a study, a training or several trainings were written to.

    Runs and studies: plans, manifests, shards, kept images and heads, derived files, and what does not belong there. Trainings:
    plan, checkpoint and network by their stamps and by the key that they share, and the log by the checkpoint's history.
    Figures and pages of trainings are not read. InputError where there is no folder.
    """
    folder = place_of(path)
    trainings = trainings_in(folder) if isinstance(folder, Path) else None
    if trainings is None:
        return verifying.verify(path)
    return [fault for one in trainings for fault in _faults_of(one)]


def _faults_of(folder: Path) -> Iterator[Fault]:
    try:
        key = read_plan(folder / PLAN_FILE)["key"]
    except InputError as error:
        yield Fault(str(error))
        return
    yield from _faults_of_checkpoint(folder, key)
    if (folder / NETWORK_FILE).exists():
        try:
            if read_fitted(folder / NETWORK_FILE).about.get("key") != key:
                yield Fault(f"{folder / NETWORK_FILE} is the network of another training")
        except InputError as error:
            yield Fault(str(error))
    for place in sorted(folder.iterdir()):
        if place.name.endswith(SCRATCH_ENDING):
            yield Fault(
                f"{place} is a scratch file of a process that was killed; the same command removes it"
            )


def _faults_of_checkpoint(folder: Path, key: str) -> Iterator[Fault]:
    """Those of the checkpoint, of the log beside it, and of a network that should be there."""
    if not (folder / CHECKPOINT_FILE).exists():
        if (folder / NETWORK_FILE).exists():
            yield Fault(f"{folder / CHECKPOINT_FILE} is missing")
        return
    try:
        begun = Checkpoint.read(folder / CHECKPOINT_FILE, key)
        read_log(folder / LOG_FILE)
    except InputError as error:
        yield Fault(str(error))
        return
    # epochs that ended after the checkpoint are in the log already; the bytes, since other digits may be the same number
    if not (folder / LOG_FILE).read_bytes().startswith(as_csv(begun.history).encode()):
        yield Fault(
            f"{folder / LOG_FILE} is damaged or was changed: it differs from the checkpoint's history"
        )
    if begun.best and not (folder / NETWORK_FILE).exists():
        yield Fault(f"{folder / NETWORK_FILE} is missing; the same command writes it")
