"""Runs, evaluations, bounds and trainings → the one page about them.

``report.html`` in a run's folder and what ``uncanny report`` writes are pages of this builder.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from uncannyvalley.analysis.phase_table import Phases, phases
from uncannyvalley.analysis.walked import Walked
from uncannyvalley.report.detectors.loading import evaluations_below, load_detection
from uncannyvalley.report.detectors.section import DetectionSection
from uncannyvalley.report.page_numbers.payload import payload_of
from uncannyvalley.report.pages.html import from_template
from uncannyvalley.report.pages.overview import differences_of, overview_table, summary_row
from uncannyvalley.report.pages.page import ReportPage
from uncannyvalley.report.pages.run_section import Room, Told, told_run
from uncannyvalley.report.pages.run_words import run_title
from uncannyvalley.report.pages.subjects import Subjects
from uncannyvalley.report.proofs.loading import proofs_below
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.naming import title_of
from uncannyvalley.run.request import doubts_of

TEMPLATE = "report.html.j2"

MOST_SECTIONS = 12
"""Runs of which the page has all numbers; of further ones it has a row in the table of runs."""

FIRST = "r0"
"""Id of the section of the only run."""

DETECTION = "detection"
"""Of a run's folder: where evaluations of detectors on it lie."""


def phases_of(run: RunFolder, restart: int = 0) -> Phases:
    """The phases of a run beside its recorded controls, with every doubt about it."""
    return phases(run.trajectory, run.controls(), restart=restart, diagnostics=doubts_of(run))


def page_of_run(run: RunFolder, *, title: str = "", room: Room = Room()) -> ReportPage:
    """The page of one run, with the detectors that were evaluated on it and the bounds that were held against it.

    Raises InputError where the run lacks the measures that phases need.
    """
    return page_of_told(run, told_run(run, phases_of(run), FIRST, title=title, room=room))


def page_of_told(run: RunFolder, told: Told) -> ReportPage:
    """The same, where the run's section is made already."""
    return ReportPage(
        title=told.section.title,
        lead=told.section.lead,
        command=told.section.command,
        payload=payload_of([told.numbers]),
        sections=[told.section],
        detections=detections_of(run),
        bounds=proofs_below(run.path),
    )


def detections_of(run: RunFolder) -> list[DetectionSection]:
    """The evaluations in a run's folder."""
    return [load_detection(place) for place in evaluations_below(run.path / DETECTION)]


def page_of(
    subjects: Subjects,
    command: str,
    *,
    title: str = "",
    room: Room = Room(),
    progress: Callable[[int], None] | None = None,
) -> ReportPage:
    """The page of several runs, evaluations, bounds and trainings.

    Of up to MOST_SECTIONS runs it has all numbers; further ones, and those that lack the measures that phases need, have
    a row alone. ``progress`` is told of each run that is ready.
    """
    gathered = _gather(subjects.runs, room, progress)
    sections = [one.section for one in gathered.told]
    heading = title or _title(subjects)
    differences = differences_of(gathered.walked, heading)
    runs = [subjects.runs[name] for name in gathered.walked]
    return ReportPage(
        title=heading,
        lead=_lead(subjects),
        command=command,
        payload=payload_of([one.numbers for one in gathered.told]),
        sections=sections,
        comparison=overview_table(gathered.rows) if len(gathered.rows) > 1 else None,
        differences=differences.table,
        comparison_svg=differences.figure_svg,
        detections=[*(found for run in runs for found in detections_of(run)), *subjects.detections],
        bounds=[*(found for run in runs for found in proofs_below(run.path)), *subjects.bounds],
        trainings=subjects.trainings,
        notes=[*subjects.notes, *gathered.notes, *differences.notes],
    )


@dataclass(frozen=True)
class _Gathered:
    """Of all runs a row; of those with sections also what the page tells, and the walks by name."""

    rows: list[list[str]] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    walked: dict[str, Walked] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _gather(runs: Mapping[str, RunFolder], room: Room, progress: Callable[[int], None] | None) -> _Gathered:
    gathered = _Gathered()
    sharing, unsaid = room.shared(min(len(runs), MOST_SECTIONS)), 0
    for name, run in runs.items():
        # a copy: a folder keeps its trajectory once it was read, and most of many are only summarised
        own = replace(run)
        walked = _walked(own)
        found = None if walked.phases is None else _with_doubts(walked.phases, walked)
        summary = walked.summary(name) if found is None else found.own_summary
        gathered.rows.append(summary_row(name, summary, walked.doubts))
        if found is None:
            lacking = ", ".join(walked.lacking)
            gathered.notes.append(f"{name} recorded no {lacking}: it has no phases, and no section here.")
        elif len(gathered.told) == MOST_SECTIONS:
            unsaid += 1
        else:
            gathered.told.append(told_run(own, found, f"r{len(gathered.told)}", title=name, room=sharing))
            gathered.walked[name] = walked
        if progress is not None:
            progress(1)
    if unsaid:
        gathered.notes.append(
            f"{MOST_SECTIONS} of {len(runs)} runs have sections here, {unsaid} more a row in the table alone."
        )
    return gathered


def _with_doubts(found: Phases, walked: Walked) -> Phases:
    return replace(found, diagnostics=(*found.diagnostics, *walked.diagnostics))


def _walked(run: RunFolder) -> Walked:
    return Walked(run.trajectory, run.plan.data.fingerprint, run.controls(), doubts_of(run))


def _title(subjects: Subjects) -> str:
    """What the runs share, or the title of what there is else."""
    if len(subjects.runs) > 1:
        return title_of([run.plan for run in subjects.runs.values()])
    names = [*(f"The walk of {run_title(run)}" for run in subjects.runs.values())]
    others = [
        one.title for group in (subjects.detections, subjects.bounds, subjects.trainings) for one in group
    ]
    return (names + others)[0] if len(names) == 1 or len(others) == 1 else f"{len(others)} results"


def _lead(subjects: Subjects) -> str:
    """How much of what the page holds."""
    counts = {
        ("recorded run", "recorded runs"): len(subjects.runs),
        ("evaluated detector", "evaluated detectors"): len(subjects.detections),
        ("set of bounds", "sets of bounds"): len(subjects.bounds),
        ("training", "trainings"): len(subjects.trainings),
    }
    parts = [f"{count} {names[count > 1]}" for names, count in counts.items() if count]
    return f"{', '.join(parts)}."


def render(page: ReportPage) -> str:
    """The page as HTML that works from disk, offline."""
    from uncannyvalley.report.charts.scripts import inline_scripts

    inlined = inline_scripts(page.payload, detections=page.detections, bounds=page.bounds)
    return from_template(TEMPLATE, page, inlined=inlined)
