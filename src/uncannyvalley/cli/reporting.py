"""``uncanny report``: runs, studies, evaluations, bounds and trainings as one page."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import aside, console, print_json, progress_bars
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from uncannyvalley.report.pages.page import ReportPage
    from uncannyvalley.report.pages.subjects import Subjects

ENDINGS = (".html", ".htm")


def report(
    folders: Annotated[
        list[str],
        typer.Argument(
            help="Folders of uncanny record, run (a study: its finished runs), train and detect evaluate.",
            metavar="RUN",
            show_default=False,
        ),
    ],
    html: Annotated[
        Path | None,
        typer.Option(
            help="The page to write; report.html in the folder of a single run if left out.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[
        str, typer.Option(help="Heading of the page; what the runs share if left out.", show_default=False)
    ] = "",
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Show the images that the runs kept.")
    ] = True,
    json: options.Json = False,
) -> None:
    """Write one page that works offline: walks, examples with their images, an explorer, phases, detectors and bounds."""
    from uncannyvalley.report.pages.report_page import render
    from uncannyvalley.report.pages.subjects import open_subjects

    started = time.perf_counter()
    if html is not None:
        _check_file(html)
    subjects = open_subjects(folders)
    own = len(subjects) == 1 and len(subjects.runs) == 1
    if html is None and not own:
        raise InputError(
            "--html says where the page goes: only a single run has a place of its own for it; give --html report.html"
        )
    page = _page(subjects, folders, title, images, quiet=json)
    content = render(page).encode()
    path = _write(subjects, html, content)
    seconds = time.perf_counter() - started
    if json:
        about = {"page": path, "bytes": len(content), "seconds": round(seconds, 2), "title": page.title}
        print_json(
            {
                **about,
                "runs": [str(run.path) for run in subjects.runs.values()],
                "sections": len(page.sections),
                "notes": list(page.notes),
            }
        )
        return
    for note in page.notes:
        aside.print(note, style="yellow", markup=False, soft_wrap=True)
    console.print("[bold]   page[/bold]  ", end="")
    console.print(path, markup=False, soft_wrap=True)
    facts = f"{len(content) / 1e6:.1f} MB, {seconds:.1f} s. {page.lead}"
    console.print(f"         {facts}", style="dim", markup=False, soft_wrap=True)


def _page(subjects: "Subjects", folders: list[str], title: str, images: bool, quiet: bool) -> "ReportPage":
    """The page of one run as its folder has it, or that of all subjects."""
    from uncannyvalley.report.pages.report_page import page_of, page_of_run
    from uncannyvalley.report.pages.run_section import Room

    room = Room(images=images)
    if len(subjects) == 1 and len(subjects.runs) == 1:
        return page_of_run(next(iter(subjects.runs.values())), title=title, room=room)
    command = shlex.join(["uncanny", "report", *(Path(one).name for one in folders), "--html", "report.html"])
    with progress_bars(quiet or len(subjects.runs) < 2, "runs") as progress:
        count = progress("runs", len(subjects.runs)) if progress else None
        return page_of(subjects, command, title=title, room=room, progress=count)


def _check_file(path: Path) -> None:
    """InputError, before anything is read, where no page can be written."""
    if path.is_dir():
        raise InputError(
            f"--html takes the name of a file, got the folder {path}; give {path / 'report.html'}"
        )
    if path.suffix not in ENDINGS:
        raise InputError(f"--html takes a {' or '.join(ENDINGS)} file, got {path}")


def _write(subjects: "Subjects", html: Path | None, content: bytes) -> str:
    """Write the page; into a run's own folder so that ``uncanny verify`` knows it."""
    from uncannyvalley.report.pages.run_report import REPORT_FILE, write_page
    from uncannyvalley.storing.files import cannot_write, write_bytes

    for run in subjects.runs.values():
        own = run.path / REPORT_FILE
        if html is None or html.resolve() == Path(str(own)).resolve():
            return str(write_page(run, content))
    assert html is not None
    try:
        html.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(html, error) from error
    write_bytes(html, content)
    return str(html)
