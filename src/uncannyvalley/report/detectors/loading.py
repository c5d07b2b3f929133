"""``evaluation.json``: what an evaluation leaves, and the section of a page that is made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from uncannyvalley.detect.evaluation.outcome import DetectorOutcome, Evaluation
from uncannyvalley.detect.evaluation.stored import evaluation_of
from uncannyvalley.errors import InputError
from uncannyvalley.report.detectors.evaluation_tables import headline, shared_notes, terminal_tables
from uncannyvalley.report.detectors.page_tables import more_tables
from uncannyvalley.report.detectors.panels import roc_panels
from uncannyvalley.report.detectors.section import DetectionSection, draw_roc, smallest_rate
from uncannyvalley.report.drawings.figures import to_svg
from uncannyvalley.storing.places import Place
from uncannyvalley.storing.stamped_json import read_stamped

JSON_FILE = "evaluation.json"

FOLDER = "detection"
"""Of a run, where evaluations of detectors on it are looked for: ``--out RUN/detection``, or a folder in it."""

DEPTH = 3
"""Levels of folders that are looked through."""

CAPTION = (
    "Both axes are logarithmic. The dotted vertical line is the promised rate, the dots are the promised thresholds, the "
    "dotted diagonal is chance. Curves come from the held-out images themselves and promise nothing."
)

REMEDY = "evaluate again: attacked images are kept, so that it is quick"


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation with what its page says besides.

    name         of the detector that the page is about, among those evaluated
    about        what decided the evaluation       doubts  what the command had to say against its results
    class_names  of the network, or none           command  that made it
    """

    found: Evaluation
    name: str
    about: Mapping[str, Any]
    doubts: Sequence[str]
    class_names: tuple[str, ...]
    command: str

    @property
    def outcome(self) -> DetectorOutcome:
        """What was found of the detector that the page is about."""
        return self.found.detectors[self.name]

    @property
    def title(self) -> str:
        about = self.about
        return f"{Path(str(about.get('detector'))).name} on {about.get('data')}, images from row {about.get('skipped')}"

    def to_json(self) -> dict[str, Any]:
        """The entries of the file."""
        return {
            "name": self.name, "command": self.command, "class_names": list(self.class_names), "about": dict(self.about),
            "doubts": list(self.doubts), **self.found.to_json(),
        }  # fmt: skip


def read_evaluation(place: Place) -> StoredEvaluation:
    """The evaluation in a folder, or in its JSON file; InputError where it is none, or not what was written."""
    file = place / JSON_FILE if place.is_dir() else place
    return stored_evaluation(read_stamped(file, REMEDY), file)


def stored_evaluation(entries: Mapping[str, Any], file: Place) -> StoredEvaluation:
    """The evaluation of a file's entries; InputError, naming the file, where they are none."""
    try:
        found, name = evaluation_of(entries), entries["name"]
        if name not in found.detectors:
            raise InputError(f"it speaks of {name!r}, which is none of its detectors")
        return StoredEvaluation(
            found, name, dict(entries["about"]), list(entries["doubts"]), tuple(entries["class_names"]), str(entries["command"])
        )  # fmt: skip
    except KeyError as error:
        raise InputError(f"{file} lacks {error}; {REMEDY}") from error
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{file} is no evaluation: {error}") from error


def roc_figure(stored: StoredEvaluation) -> Figure:
    """Its ROC curves, as drawn on the page."""
    outcome = stored.outcome
    panels = roc_panels(stored.found, stored.name)
    return draw_roc(stored.title, panels, outcome.fpr, outcome.clean.right.out_of)


def section_of(stored: StoredEvaluation) -> DetectionSection:
    """What a page shows of an evaluation: all of it is computed from the stored numbers."""
    found, outcome = stored.found, stored.outcome
    return DetectionSection(
        title=stored.title,
        lead=" ".join(headline(outcome, found.prevalence)),
        figure_svg=to_svg(roc_figure(stored)),
        caption=CAPTION,
        doubts=[*stored.doubts, *shared_notes(found)],
        tables=[
            *terminal_tables(found, stored.name),
            *more_tables(outcome, stored.class_names, found.prevalence),
        ],
        provenance={key: _words(value) for key, value in stored.about.items()},
        command=stored.command,
        panels=roc_panels(found, stored.name),
        promised=outcome.fpr,
        smallest=smallest_rate(outcome.clean.right.out_of),
    )


def load_detection(place: Place) -> DetectionSection:
    """The section of the evaluation in a folder, or in its JSON file; InputError where it is none, or damaged."""
    return section_of(read_evaluation(place))


def evaluations_below(folder: Place, depth: int = DEPTH) -> list[Place]:
    """The JSON files of the evaluations in a folder and those inside it, sorted; [] where there is no such folder."""
    if not folder.is_dir():
        return []
    if (folder / JSON_FILE).is_file():
        return [folder / JSON_FILE]
    inside = sorted(folder.iterdir(), key=str) if depth else []
    return [file for one in inside for file in evaluations_below(one, depth - 1)]


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
