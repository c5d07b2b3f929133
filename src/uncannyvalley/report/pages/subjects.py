"""Folders, as a user names them → what a page is about."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uncannyvalley.errors import InputError
from uncannyvalley.report.detectors.loading import JSON_FILE as EVALUATION_FILE
from uncannyvalley.report.detectors.loading import evaluations_below, load_detection
from uncannyvalley.report.detectors.section import DetectionSection
from uncannyvalley.report.pages.run_words import run_title
from uncannyvalley.report.proofs.loading import load_bounds, load_radii
from uncannyvalley.report.proofs.section import BoundsSection
from uncannyvalley.report.proofs.stored_bounds import BOUNDS_FILE
from uncannyvalley.report.proofs.stored_radii import RADII_FILE
from uncannyvalley.report.trainings.stored_training import load_training
from uncannyvalley.report.trainings.training import TrainingPage
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.naming import run_names
from uncannyvalley.run.plan import PLAN_FILE
from uncannyvalley.storing.places import Place, is_local, place_of
from uncannyvalley.study.folder import open_study
from uncannyvalley.train.plan import trainings_in

ACCEPTED = (
    "give folders that uncanny record, run, train or detect evaluate --out wrote, or that hold the bounds.json of uncanny bound or "
    "the radii.json of uncanny certify"
)


@dataclass(frozen=True)
class Subjects:
    """What a page is about; runs: name → folder. Evaluations and bounds inside a run's folder belong to the run.

    notes  what was left out, and why
    """

    runs: Mapping[str, RunFolder] = field(default_factory=dict)
    detections: Sequence[DetectionSection] = ()
    bounds: Sequence[BoundsSection] = ()
    trainings: Sequence[TrainingPage] = ()
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.runs) + len(self.detections) + len(self.bounds) + len(self.trainings)


@dataclass
class _Found:
    """What has been opened so far."""

    runs: list[RunFolder] = field(default_factory=list)
    detections: list[DetectionSection] = field(default_factory=list)
    bounds: list[BoundsSection] = field(default_factory=list)
    trainings: list[TrainingPage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def open_subjects(folders: Sequence[str]) -> Subjects:
    """The runs, studies, evaluations, bounds and trainings in these folders, in their order.

    Of a study and of a folder of several trainings, those that are finished; the others are noted. Raises InputError for a
    folder that is none of these, is given twice, or holds nothing finished.
    """
    found = _Found()
    for folder, place in _different(folders).items():
        _open(folder, place, found)
    runs = dict(zip(_names(found.runs), found.runs, strict=True))
    subjects = Subjects(runs, found.detections, found.bounds, found.trainings, found.notes)
    if not len(subjects):
        raise InputError(f"nothing is finished in {', '.join(folders)}: {' '.join(found.notes)}")
    return subjects


def _names(runs: Sequence[RunFolder]) -> list[str]:
    """What tells the runs apart; the title of the only one."""
    if len(runs) == 1:
        return [run_title(runs[0])]
    return run_names([run.plan for run in runs], [run.path for run in runs]) if runs else []


def _different(folders: Sequence[str]) -> dict[str, Place]:
    places: dict[str, Place] = {}
    known: dict[str, str] = {}
    for folder in folders:
        place = place_of(folder)
        if not place.exists():
            raise InputError(f"{folder} does not exist; {ACCEPTED}")
        path = str(Path(folder).resolve()) if is_local(place) else folder
        if path in known:
            raise InputError(f"{folder} is the same folder as {known[path]}; give each once")
        known[path], places[folder] = folder, place
    return places


def _open(folder: str, place: Place, found: _Found) -> None:
    """Add what lies in one folder."""
    trainings = trainings_in(Path(folder)) if is_local(place) else None
    if trainings is not None:
        _open_trainings(trainings, found, alone=trainings == [Path(folder)])
    elif place.is_dir() and (place / PLAN_FILE).exists():
        _open_runs(folder, found)
    elif not _open_results(place, found):
        raise InputError(f"{folder} is none of the folders that a page is made of; {ACCEPTED}")


def _open_trainings(folders: Sequence[Path], found: _Found, alone: bool) -> None:
    for one in folders:
        try:
            found.trainings.append(load_training(one))
        except InputError as error:
            if alone:
                raise
            found.notes.append(f"Left out: {error}.")


def _open_runs(folder: str, found: _Found) -> None:
    """The run, or the finished ones of a study."""
    study = open_study(folder)
    for one in study.runs:
        missing = [number for number in range(one.run.plan.shard_count) if not one.run.shard(number).exists()]
        if not missing:
            found.runs.append(one.run)
            continue
        fault = (
            f"{one.run.path} is unfinished: {len(missing)} of {one.run.plan.shard_count} shards are missing"
        )
        if study.plan is None:
            raise InputError(f"{fault}; the command that began it goes on with it")
        found.notes.append(f"Left out: {fault}.")


def _open_results(place: Place, found: _Found) -> bool:
    """Evaluations, bounds and certificates; whether there are any."""
    loaders: dict[str, Callable[[Place], BoundsSection]] = {BOUNDS_FILE: load_bounds, RADII_FILE: load_radii}
    if not place.is_dir():
        loader = loaders.get(place.name)
        if place.name == EVALUATION_FILE:
            found.detections.append(load_detection(place))
        elif loader is not None:
            found.bounds.append(loader(place))
        return loader is not None or place.name == EVALUATION_FILE
    proofs = [load(place) for name, load in loaders.items() if (place / name).is_file()]
    detections = [load_detection(one) for one in evaluations_below(place)]
    found.bounds += proofs
    found.detections += detections
    return bool(proofs or detections)
