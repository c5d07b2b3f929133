"""What ``uncanny bound`` and ``uncanny certify`` leave on the disk: numbers as stamped JSON, and their figures."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uncannyvalley.cli.printing import aside, console

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncannyvalley.run.bounding import LossBounds
    from uncannyvalley.run.certifying import Certificates
    from uncannyvalley.run.folder import RunFolder
    from uncannyvalley.storing.places import Place


def keep_bounds(found: "LossBounds", out: "Place", about: Mapping[str, Any], command: str) -> dict[str, str]:
    """Bounds and their figure into a folder; what → path."""
    return {name: str(place) for name, place in _write_bounds(found, out, about, command).items()}


def keep_with_run(
    run: "RunFolder", found: "LossBounds", about: Mapping[str, Any], command: str
) -> dict[str, str]:
    """The same into the run's own folder, listed in its manifest; a run that cannot be written to now is left as it is."""
    from uncannyvalley.errors import InputError
    from uncannyvalley.report.proofs.loading import FOLDER
    from uncannyvalley.run.ledger import list_derived
    from uncannyvalley.storing.locks import held

    try:
        with held(run.path):
            places = _write_bounds(found, run.path / FOLDER, about, command)
            listed = {
                f"{FOLDER}/{place.name}": hashlib.sha256(place.read_bytes()).hexdigest()
                for place in places.values()
            }
            list_derived(run, listed)
    except InputError as error:
        aside.print(f"not kept: {error}", style="yellow", markup=False, soft_wrap=True)
        return {}
    return {name: str(place) for name, place in places.items()}


def _write_bounds(
    found: "LossBounds", out: "Place", about: Mapping[str, Any], command: str
) -> "dict[str, Place]":
    from uncannyvalley.report.proofs.stored_bounds import BOUNDS_FIGURE, BOUNDS_FILE, bounds_figure

    entries = {"about": _with_version(about), "command": command, **found.to_dict()}
    return _write(out, BOUNDS_FILE, entries, BOUNDS_FIGURE, bounds_figure(entries))


def keep_radii(found: "Certificates", out: "Place", about: Mapping[str, Any], command: str) -> dict[str, str]:
    """Radii of every image that is classified correctly, and their figure; null stands for an infinite radius."""
    from uncannyvalley.report.proofs.stored_radii import RADII_FIGURE, RADII_FILE, radii_figure

    content = found.to_dict()
    for row, (_, _, bound) in zip(content["radii"], found.rows(), strict=True):
        values = bound.value[found.correct].tolist()
        row["values"] = [one if math.isfinite(one) else None for one in values]
    entries = {"about": _with_version(about), "command": command, **content}
    places = _write(out, RADII_FILE, entries, RADII_FIGURE, radii_figure(entries))
    return {name: str(place) for name, place in places.items()}


def _with_version(about: Mapping[str, Any]) -> dict[str, Any]:
    from uncannyvalley import __version__

    return {**about, "uncannyvalley": __version__}


def _write(
    out: "Place", numbers: str, entries: Mapping[str, Any], picture: str, figure: "Figure"
) -> "dict[str, Place]":
    from uncannyvalley.report.drawings.figures import to_png
    from uncannyvalley.storing.files import cannot_write, write_bytes
    from uncannyvalley.storing.stamped_json import write_stamped

    try:
        if isinstance(out, Path):
            out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    write_stamped(out / numbers, entries)
    write_bytes(out / picture, to_png(figure))
    return {"numbers": out / numbers, "figure": out / picture}


def print_files(files: Mapping[str, str]) -> None:
    """What was written, a line each."""
    for name, path in files.items():
        console.print(f"[bold]{name:>7}[/bold]  {path}", soft_wrap=True)
