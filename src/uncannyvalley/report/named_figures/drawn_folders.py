"""What figures are drawn of: folders as a user names them, read where a figure asks for something in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.errors import InputError
from uncannyvalley.report.detectors.loading import (
    FOLDER,
    StoredEvaluation,
    evaluations_below,
    read_evaluation,
)
from uncannyvalley.report.drawings.figures import WalkFigure
from uncannyvalley.report.pages.report_page import phases_of
from uncannyvalley.report.pages.run_figure import walk_figure
from uncannyvalley.report.proofs.loading import FOLDER as PROOFS
from uncannyvalley.report.proofs.loading import stored_entries
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.plan import PLAN_FILE
from uncannyvalley.storing.places import Place, is_local, place_of
from uncannyvalley.study.folder import open_study
from uncannyvalley.train.plan import trainings_in


@dataclass(frozen=True)
class DrawnFolders:
    """The folders of a figure. What is asked for and is not there raises InputError, which says why.

    width  inches that the figure will be wide, for those that arrange texts; None for their own width
    """

    places: tuple[Place, ...]
    width: float | None = None

    @cached_property
    def trainings(self) -> list[Path]:
        """The folders of trainings."""
        return [one for place in self.places for one in _trainings(place)]

    @cached_property
    def runs(self) -> list[RunFolder]:
        """The runs, and those of studies."""
        planned = [one for one in self.places if (one / PLAN_FILE).exists() and not _trainings(one)]
        return [one.run for place in planned for one in open_study(place).runs]

    @property
    def run(self) -> RunFolder:
        """The one run."""
        if not self.runs:
            raise InputError("it is drawn of a run, which is not here")
        if len(self.runs) > 1:
            raise InputError(f"it is drawn of one run, and here are {len(self.runs)}; give the folder of one")
        return self.runs[0]

    @cached_property
    def phases(self) -> Phases:
        """The phases of the one run beside its controls."""
        return phases_of(self.run)

    @cached_property
    def walk(self) -> WalkFigure:
        """What figures of the one run's walk show."""
        return walk_figure(self.run, self.phases, self.phases.summary())

    @cached_property
    def evaluation(self) -> StoredEvaluation:
        """The one evaluation of a detector, in the folder itself or in a run's folder of them."""
        found = [file for place in self.places for file in _evaluations(place)]
        if not found:
            raise InputError("no evaluation of a detector is here (uncanny detect evaluate --out)")
        if len(found) > 1:
            raise InputError(f"here are {len(found)} evaluations; give the folder of one: {found[0].parent}")
        return read_evaluation(found[0])

    def proof(self, name: str, made_by: str) -> Mapping[str, Any]:
        """The entries of bounds.json or radii.json, in the folder itself or among a run's bounds."""
        near = [folder for place in self.places for folder in (place, place / PROOFS)]
        found = [folder for folder in near if (folder / name).is_file()]
        if not found:
            raise InputError(f"no {name} is here ({made_by})")
        if len(found) > 1:
            raise InputError(f"here are {len(found)} of {name}; give one folder")
        return stored_entries(found[0], name)

    def file(self, name: str, made_by: str) -> Place:
        """The one file of that name in the folders."""
        found = [place / name for place in self.places if (place / name).is_file()]
        if len(found) != 1:
            raise InputError(f"{len(found) or 'no'} {name} {'are' if found else 'is'} here ({made_by})")
        return found[0]


def _trainings(place: Place) -> list[Path]:
    return (trainings_in(Path(str(place))) or []) if is_local(place) else []


def _evaluations(place: Place) -> list[Place]:
    return evaluations_below(place, 0) or evaluations_below(place / FOLDER)


def open_drawn(folders: Sequence[str], width: float | None = None) -> DrawnFolders:
    """The folders of a figure; InputError for one that does not exist."""
    places = [place_of(folder) for folder in folders]
    for place in places:
        if not place.is_dir():
            raise InputError(
                f"{place} is no folder; give one that uncanny record, run, train, measure, bound, certify or detect evaluate wrote"
            )
    return DrawnFolders(tuple(places), width)
