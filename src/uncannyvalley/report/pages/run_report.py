"""A finished run folder → ``phases.parquet``, ``walk.png`` and ``report.html`` in it."""

import hashlib
from dataclasses import dataclass

from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.report.drawings.figures import draw_walk, to_png
from uncannyvalley.report.pages.report_page import page_of_run, phases_of, render
from uncannyvalley.report.pages.run_figure import walk_figure
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.ledger import Ledger
from uncannyvalley.storing.files import sha256, write_bytes
from uncannyvalley.storing.locks import held
from uncannyvalley.storing.parquet import write_parquet
from uncannyvalley.storing.places import Place

__all__ = [
    "FIGURE_FILE",
    "PHASES_FILE",
    "REPORT_FILE",
    "Written",
    "phases_of",
    "write_page",
    "write_report",
    "written_report",
]

PHASES_FILE, FIGURE_FILE, REPORT_FILE = "phases.parquet", "walk.png", "report.html"


@dataclass(frozen=True)
class Written:
    """The derived files of a run."""

    phases: Place
    figure: Place
    report: Place

    def named(self) -> dict[str, str]:
        """What → path."""
        return {name: str(place) for name, place in vars(self).items()}


def write_report(run: RunFolder, found: Phases) -> Written:
    """Write the derived files beside the shards, and list them in the manifest beside those that others derived."""
    digests = {PHASES_FILE: write_parquet(run.path / PHASES_FILE, found.table.schema, [found.table])}
    figure = to_png(draw_walk(walk_figure(run, found, found.summary())))
    page = render(page_of_run(run, found)).encode()
    for name, content in ((FIGURE_FILE, figure), (REPORT_FILE, page)):
        write_bytes(run.path / name, content)
        digests[name] = hashlib.sha256(content).hexdigest()
    _list(run, digests)
    return Written(*(run.path / name for name in (PHASES_FILE, FIGURE_FILE, REPORT_FILE)))


def write_page(run: RunFolder, content: bytes) -> Place:
    """Replace the page in a run's folder, which nobody may be recording into."""
    place = run.path / REPORT_FILE
    with held(run.path):
        write_bytes(place, content)
        _list(run, {REPORT_FILE: hashlib.sha256(content).hexdigest()})
    return place


def _list(run: RunFolder, digests: dict[str, str]) -> None:
    """Files that were derived from the run, by their SHA-256, in its manifest."""
    ledger = Ledger(run, 0)
    ledger.list_files(run.manifest(0).files | digests)
    ledger.write()


def written_report(run: RunFolder) -> Written | None:
    """The derived files that are there already, as they were written; None where one is missing or changed."""
    files = run.manifest(0).files
    ours = (PHASES_FILE, FIGURE_FILE, REPORT_FILE)
    places = [run.path / name for name in ours]
    if any(name not in files for name in ours) or any(
        not place.exists() or sha256(place) != files[place.name] for place in places
    ):
        return None
    return Written(*places)
