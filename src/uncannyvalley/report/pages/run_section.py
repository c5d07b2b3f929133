"""A recorded run → its section of the page, and its numbers for the page's scripts."""

from dataclasses import dataclass
from typing import Any

from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.analysis.reading import reading
from uncannyvalley.analysis.summary import PhaseSummary
from uncannyvalley.report.drawings.figures import WalkFigure, draw_walk, to_svg
from uncannyvalley.report.page_numbers import pictures, replay_numbers
from uncannyvalley.report.page_numbers.pictures import picture_numbers
from uncannyvalley.report.page_numbers.walk_numbers import carried_steps, run_numbers
from uncannyvalley.report.pages.command import command_of
from uncannyvalley.report.pages.page import RunSection
from uncannyvalley.report.pages.run_curves import RunCurves, run_curves
from uncannyvalley.report.pages.run_facts import class_names_of, provenance_of
from uncannyvalley.report.pages.run_figure import figure_of_walks
from uncannyvalley.report.pages.run_words import figure_title, run_lead, run_title
from uncannyvalley.report.suffixes.outcomes import model_lines, outcome_lines
from uncannyvalley.report.suffixes.suffix_strips import scale_of, suffix_strips
from uncannyvalley.run.folder import RunFolder

STRIPS = 12
"""Prompts whose suffixes are shown."""


@dataclass(frozen=True)
class Told:
    """A run, ready for the page: ``numbers`` is its part of the payload, ``walk`` what its static figure shows."""

    section: RunSection
    numbers: dict[str, Any]
    walk: WalkFigure


@dataclass(frozen=True)
class Room:
    """What a run may take of a page: whether it shows images, and characters of pictures and of kept logits."""

    images: bool = True
    pictures: int = pictures.BUDGET
    logits: int = replay_numbers.BUDGET

    def shared(self, runs: int) -> "Room":
        """The room of each of several runs."""
        return Room(self.images, self.pictures // max(1, runs), self.logits // max(1, runs))


def told_run(run: RunFolder, found: Phases, name: str, *, title: str = "", room: Room = Room()) -> Told:
    """The section and the numbers of a run whose phases are ``found``; ``name`` is the id of both.

    title  its heading, where the page names its runs by what they differ in
    """
    summary, drawn = found.summary(), run_curves(found)
    numbers, notes = _numbers(run, found, drawn, room)
    heading = title or f"The walk of {run_title(run)}"
    walk = figure_of_walks(figure_title(run), found, summary, drawn)
    section = RunSection(
        id=name,
        title=heading,
        lead=run_lead(run, summary),
        subject=found.trajectory.subject,
        figure_svg=to_svg(draw_walk(walk)),
        walk_names=[one.name for one in summary.walks],
        phase_rows=summary.cells(),
        reading=reading(summary),
        doubts=summary.diagnostics,
        provenance=provenance_of(run),
        command=command_of(run),
        notes=[*_misclassified(summary), *notes],
        **(_of_prompts(run, found) if found.trajectory.subject == "prompt" else {}),
    )
    return Told(section, {"id": name, "title": heading, **numbers}, walk)


def _numbers(run: RunFolder, found: Phases, drawn: RunCurves, room: Room) -> tuple[dict[str, Any], list[str]]:
    """The numbers, and what of them is left out."""
    numbers = run_numbers(found, drawn, class_names=class_names_of(run))
    replay, note = replay_numbers.kept_replay(run, found, carried_steps(found)[0], room.logits)
    shown = picture_numbers(run.images(), room.pictures) if room.images else None
    notes = [note] if note else []
    if left_out := numbers["steps_left_out"]:
        notes.append(
            f"{left_out} rows of the walk are left out of the numbers here, between those that are shown."
        )
    if shown and (missing := shown["left_out"]):
        notes.append(f"{missing} kept images are left out to keep the page small.")
    return {**numbers, "pictures": shown, "replay": replay, "replay_note": note}, notes


def _misclassified(summary: PhaseSummary) -> list[str]:
    count = summary.walks[0].misclassified
    return [f"{summary.words.before}, and not counted in the phases: {count}."] if count else []


def _of_prompts(run: RunFolder, found: Phases) -> dict[str, Any]:
    """What only walks of suffixes have."""
    strips = suffix_strips(run.trajectory, found, STRIPS)
    return {
        "outcomes": [*outcome_lines(run), *model_lines(run.trajectory)],
        "suffix_strips": strips,
        "scale": scale_of(strips),
    }
