"""The page and its sections, ready to be shown: every text is escaped by the template, and nothing is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uncannyvalley.analysis.diagnostics import Diagnostic
from uncannyvalley.report.detectors.section import DetectionSection, ResultTable
from uncannyvalley.report.proofs.section import BoundsSection
from uncannyvalley.report.suffixes.shades import Scale, Shade
from uncannyvalley.report.suffixes.suffix_strips import SuffixStrip, TargetToken
from uncannyvalley.report.trainings.training import TrainingPage


@dataclass(frozen=True, kw_only=True)
class RunSection:
    """One run. Every text is escaped; only the figure is markup, drawn by this package.

    id            of its numbers in the page's payload, and of its place on the page
    subject       "image" or "prompt"
    phase_rows    (row title, a cell for each of walk_names)
    notes         what of its numbers the page leaves out
    outcomes      of prompts: targets matched and attacks judged, a line each
    scale         of prompts: the colours of all suffix strips
    """

    id: str
    title: str
    lead: str
    subject: str
    figure_svg: str | None
    walk_names: Sequence[str]
    phase_rows: Sequence[tuple[str, Sequence[str]]]
    reading: str
    doubts: Sequence[Diagnostic]
    provenance: Mapping[str, str]
    command: str
    notes: Sequence[str] = ()
    outcomes: Sequence[str] = ()
    suffix_strips: Sequence[SuffixStrip] = ()
    scale: Scale | None = None

    def shade(self, token: TargetToken) -> Shade | None:
        """The colour of a target token."""
        return None if self.scale is None else self.scale.shade(token.sharpness)


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """The page of one run or several, of evaluated detectors, of bounds and of trainings.

    command      that makes the page, or records its one run
    comparison   a row a run, where there are several; differences: each run minus the first
    notes        what was left out, and why
    payload      the numbers of the sections for the page's scripts, as ``payload_of`` makes it
    """

    title: str
    lead: str
    command: str
    payload: Mapping[str, Any]
    sections: Sequence[RunSection] = ()
    comparison: ResultTable | None = None
    differences: ResultTable | None = None
    comparison_svg: str | None = None
    detections: Sequence[DetectionSection] = ()
    bounds: Sequence[BoundsSection] = ()
    trainings: Sequence[TrainingPage] = ()
    notes: Sequence[str] = ()
