"""A finished run folder → ``phases.parquet``, ``walk.png`` and ``report.html`` in it."""

import hashlib
from dataclasses import dataclass

from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.report.drawings.figures import draw_walk, to_png
from uncannyvalley.report.pages.report_page import FIRST, page_of_told, render
from uncannyvalley.report.pages.run_section import told_run
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.ledger import list_derived
from uncannyvalley.storing.files import sha256, write_bytes
from uncannyvalley.storing.locks import held
from uncannyvalley.storing.parquet import write_parquet
from uncannyvalley.storing.places import Place

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
    told = told_run(run, found, FIRST)
    figure, page = to_png(draw_walk(told.walk)), render(page_of_told(run, told)).encode()
    for name, content in ((FIGURE_FILE, figure), (REPORT_FILE, page)):
        write_bytes(run.path / name, content)
        digests[name] = hashlib.sha256(content).hexdigest()
    list_derived(run, digests)
    return Written(*(run.path / name for name in (PHASES_FILE, FIGURE_FILE, REPORT_FILE)))


def write_page(run: RunFolder, content: bytes) -> Place:
    """Replace the page in a run's folder, which nobody may be recording into."""
    place = run.path / REPORT_FILE
    with held(run.path):
        write_bytes(place, content)
        list_derived(run, {REPORT_FILE: hashlib.sha256(content).hexdigest()})
    return place


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
