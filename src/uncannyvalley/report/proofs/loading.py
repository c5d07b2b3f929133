"""Sections of the bounds and certificates that lie in folders."""

from collections.abc import Callable, Mapping
from typing import Any

from uncannyvalley.errors import InputError
from uncannyvalley.report.proofs.section import BoundsSection
from uncannyvalley.report.proofs.stored_bounds import BOUNDS_FILE, bounds_section
from uncannyvalley.report.proofs.stored_radii import RADII_FILE, radii_section
from uncannyvalley.storing.places import Place
from uncannyvalley.storing.stamped_json import read_stamped

FOLDER = "bounds"
"""Of a run: what ``uncanny bound RUN`` leaves, and certificates by ``uncanny certify --out RUN/bounds``."""

AGAIN = {BOUNDS_FILE: "uncanny bound makes it anew", RADII_FILE: "uncanny certify --out makes it anew"}


def load_bounds(place: Place) -> BoundsSection:
    """The section of ``bounds.json``, given itself or its folder; InputError where it is none, or damaged."""
    return _section(place, BOUNDS_FILE, bounds_section)


def load_radii(place: Place) -> BoundsSection:
    """The section of ``radii.json``, given itself or its folder; InputError where it is none, or damaged."""
    return _section(place, RADII_FILE, radii_section)


def proofs_below(run: Place) -> list[BoundsSection]:
    """The bounds and certificates that were written into a run's folder; [] where there are none."""
    loaders = {BOUNDS_FILE: load_bounds, RADII_FILE: load_radii}
    folder = run / FOLDER
    return [load(folder) for name, load in loaders.items() if (folder / name).is_file()]


def stored_entries(place: Place, name: str) -> dict[str, Any]:
    """The entries of such a file, given itself or its folder; InputError where it is damaged or not there."""
    return read_stamped(place / name if place.is_dir() else place, AGAIN[name])


def _section(place: Place, name: str, section: Callable[[Mapping[str, Any]], BoundsSection]) -> BoundsSection:
    try:
        return section(stored_entries(place, name))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{place} holds another kind of numbers than {name} ({error!r}); {AGAIN[name]}"
        ) from error
