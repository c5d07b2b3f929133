"""The rows of a training's epochs, and the table they are written as."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from uncannyvalley.errors import InputError
from uncannyvalley.storing.files import write_text
from uncannyvalley.storing.places import Place

LOG_FILE = "log.csv"


Row = Mapping[str, Any]


def selected_row(history: Sequence[Row]) -> Row:
    """The row of the network that is kept: the last one that was selected."""
    return next((row for row in reversed(history) if row["selected"]), history[-1])


def write_log(place: Place, history: Sequence[dict[str, Any]]) -> None:
    """``history`` as a CSV file, whole: numbers as they are, to the last digit, nothing where there is none.

    Nothing in it depends on when or how fast it was made, so that a training that was interrupted writes the same bytes.
    """
    write_text(place, as_csv(history))


def as_csv(history: Sequence[dict[str, Any]]) -> str:
    """Header and rows."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: int(value) if isinstance(value, bool) else value for name, value in row.items()}
        for row in history
    )
    return file.getvalue()


def read_log(place: Place) -> list[dict[str, Any]]:
    """The rows of a log; InputError where it cannot be read."""
    try:
        rows = csv.DictReader(io.StringIO(place.read_bytes().decode()))
        return [{name: _value(name, one) for name, one in row.items()} for row in rows]
    except (OSError, ValueError, TypeError) as error:  # no text, no numbers, or rows of other lengths
        raise InputError(f"{place} cannot be read as the log of a training ({error})") from error


def _value(name: str, text: str) -> Any:
    if text == "":
        return None
    if name == "selected":
        return text == "1"
    return int(text) if name in ("epoch", "step") else float(text)
