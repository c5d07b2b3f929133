"""JSON files that prove themselves: a stamp among their entries holds the SHA-256 of the whole."""

import json
from collections.abc import Mapping
from typing import Any

from uncannyvalley.errors import InputError
from uncannyvalley.storing.files import write_bytes
from uncannyvalley.storing.places import Place
from uncannyvalley.storing.stamp import BLANK, is_intact, stamp

STAMP = "stamp"


def stamped(content: Mapping[str, Any]) -> bytes:
    """``content`` as JSON with a stamp as its last entry; ValueError for numbers that are not finite."""
    text = json.dumps({**content, STAMP: BLANK}, indent=1, allow_nan=False)
    return stamp(f"{text}\n".encode())


def write_stamped(place: Place, content: Mapping[str, Any]) -> bytes:
    """``stamped`` as a whole file; returns its bytes."""
    written = stamped(content)
    write_bytes(place, written)
    return written


def read_stamped(place: Place, remedy: str) -> dict[str, Any]:
    """The entries of such a file without its stamp.

    remedy  what makes the file anew, for the message
    Raises InputError where it cannot be read, is no such file, or is not what was written.
    """
    try:
        content = place.read_bytes()
        entries = json.loads(content)
    except (OSError, ValueError) as error:
        raise InputError(f"{place} cannot be read ({error}); {remedy}") from error
    if not isinstance(entries, dict) or STAMP not in entries:
        raise InputError(
            f"{place} carries no stamp: it is damaged, or of another program or version; {remedy}"
        )
    if not is_intact(content):
        raise InputError(f"{place} is damaged: its content and the SHA-256 in it disagree; {remedy}")
    del entries[STAMP]
    return entries
