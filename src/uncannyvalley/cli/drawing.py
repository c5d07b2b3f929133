"""``uncanny figure``: one figure of what a folder holds, as PNG, SVG or PDF."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import aside, console, print_json, print_table
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from uncannyvalley.report.named_figures.drawn_folders import DrawnFolders

DEFAULT_RESOLUTION = 150.0


def figure(
    words: Annotated[
        list[str],
        typer.Argument(
            help="Folders of runs, studies, evaluations, bounds, certificates or trainings, then the name of the figure.",
            metavar="RUN... NAME",
            show_default=False,
        ),
    ] = [],  # noqa: B006 (typer reads it)
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .png, .svg or .pdf file, or a folder; NAME.png here if left out.", show_default=False
        ),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(
            help="Inches; letters keep their size. The figure's own if left out.", show_default=False
        ),
    ] = None,
    dpi: Annotated[float, typer.Option(help="Dots an inch, of PNG.")] = DEFAULT_RESOLUTION,
    listed: Annotated[
        bool,
        typer.Option(
            "--list", help="List the figures by name; with folders, why some cannot be drawn of them."
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Draw a figure by its name: walk, strips, phases, flips, temperatures, comparison, roc, bound, training, …

    The same folders give the same bytes.
    """
    from uncannyvalley.report.drawings.figure_files import check_resolution, check_width

    check_resolution(dpi)
    if width is not None:
        check_width(width)
    if listed:
        _list(words, json)
        return
    *folders, name = words or [""]
    place = _file(out, name)
    shown = _open(folders, name, width)
    _draw(shown, name, place, width, dpi)
    if json:
        print_json({"figure": name, "file": str(place)})
    else:
        console.print(f"[bold] figure[/bold]  {place}", soft_wrap=True)


def _open(folders: list[str], name: str, width: float | None) -> "DrawnFolders":
    from uncannyvalley.report.named_figures.catalogue import FIGURES
    from uncannyvalley.report.named_figures.drawn_folders import open_drawn

    if name not in FIGURES and (not folders or Path(name).is_dir()):  # the name was left out
        raise InputError(
            f"give folders and then the name of a figure, got {' '.join([*folders, name]) or 'nothing'}. Names: {', '.join(FIGURES)}; "
            "uncanny figure RUN --list says which can be drawn"
        )
    if not folders:
        raise InputError(f"give the folder to draw {name} of: uncanny figure RUN {name}")
    return open_drawn(folders, width)


def _draw(shown: "DrawnFolders", name: str, place: Path, width: float | None, dpi: float) -> None:
    from uncannyvalley.report.drawings.figure_files import as_file, resize
    from uncannyvalley.report.named_figures.catalogue import drawn
    from uncannyvalley.storing.files import cannot_write, write_bytes

    with aside.status(f"drawing {name}"):
        picture = drawn(name, shown)
        if width is not None:
            resize(picture, width)
        content = as_file(picture, place.suffix.lower(), dpi)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(place, error) from error
    write_bytes(place, content)


def _file(out: Path | None, name: str) -> Path:
    """Where the figure goes: the file, NAME.png in a folder, or here."""
    from uncannyvalley.report.drawings.figure_files import check_ending

    if out is None or out.is_dir() or not out.suffix:
        return (out or Path()) / f"{name}.png"
    check_ending(out.suffix.lower())
    return out


def _list(folders: list[str], json: bool) -> None:
    """Every name with what it shows, and of these folders why it is missing."""
    from uncannyvalley.report.named_figures.catalogue import FIGURES, reasons_against
    from uncannyvalley.report.named_figures.drawn_folders import open_drawn

    reasons = reasons_against(open_drawn(folders)) if folders else dict.fromkeys(FIGURES, "")
    if json:
        figures = [
            {"name": name, "about": one.about, "drawable": not reasons[name], "reason": reasons[name] or None}
            for name, one in FIGURES.items()
        ]
        print_json({"folders": folders, "figures": figures})
        return
    there = [[name, one.about] for name, one in FIGURES.items() if not reasons[name]]
    missing = [[name, reasons[name]] for name in FIGURES if reasons[name]]
    print_table(
        f"Figures{' of ' if folders else ''}{', '.join(folders)}", ["name", "what it shows"], there, left=2
    )
    if missing:
        console.print()
        print_table("Not of these folders", ["name", "why"], missing, left=2)
