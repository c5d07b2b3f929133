"""One self-contained page for a run: figure, phases, doubts, images, provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uncannyvalley.analysis.diagnostics import Diagnostic
from uncannyvalley.report.html import from_template
from uncannyvalley.report.strips import Strip


@dataclass(frozen=True)
class Page:
    """What the page shows. Every text is escaped; only the figure is markup, drawn by this package."""

    title: str
    lead: str
    figure_svg: str
    walk_names: Sequence[str]
    phase_rows: Sequence[tuple[str, Sequence[str]]]
    reading: str
    doubts: Sequence[Diagnostic]
    strips: Sequence[Strip]
    provenance: Mapping[str, str]
    command: str


def render(page: Page) -> str:
    """The page as HTML that works from disk, offline."""
    return from_template("page.html.j2", page)
