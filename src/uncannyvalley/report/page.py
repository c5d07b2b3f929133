"""One self-contained page for a run: figure, phases, doubts, images, provenance."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from uncannyvalley.analysis.diagnostics import Diagnostic
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
    environment = Environment(
        loader=PackageLoader("uncannyvalley.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # As an image, the figure's ids and styles cannot meet the page's.
    encoded = base64.b64encode(page.figure_svg.encode()).decode()
    figure = Markup(f"data:image/svg+xml;base64,{encoded}")
    return environment.get_template("page.html.j2").render(page=page, figure=figure)
