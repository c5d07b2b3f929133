"""Where the values of a TOML text stand: tomllib knows, but tells no lines."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from uncannyvalley.errors import InputError

Location = tuple[str | int, ...]
"""Keys and positions that lead to a value: ("attacks", 1, "eps")."""

MAY_END = re.compile(r"[\]}]|\"\"\"|'''")
"""What the last line of a statement of several lines holds."""

MOST_LINES = 300
"""Longer lists are found by their first line: each line of them costs a reading of all lines before it."""

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_BARE_FRACTION = re.compile(r"[=\[,]\s*[\d.]+\s*/\s*\d")
_WORD_OF_PYTHON = re.compile(r"[=\[,]\s*(True|False|None)\b")


def read_toml(text: str, name: str) -> dict[str, Any]:
    """The content of a TOML text; InputError "NAME:LINE: …" where it is none."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise InputError(f"{name}:1: brackets are nested too deeply to be read") from error
    except ValueError as error:  # TOMLDecodeError, and dates and numbers that Python has not
        place = _PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else _first_unread(text)
        column = f" at column {place[2]}" if place and place[2] else ""
        message = str(error)[: place.start()] if place else str(error)
        hint = _hint(_split(text)[line - 1])
        raise InputError(f"{name}:{line}: this is no TOML: {message}{column}{hint}") from error


def lines_of(text: str) -> dict[Location, int]:
    """The line, from 1, on which each value of a TOML text begins.

    Each statement is read alone, and a list over several lines as if it ended with each of them: a value stands on
    the first line with which it is there.
    """
    found: dict[Location, int] = {}
    counts: dict[Location, int] = {}
    table: Location = ()
    for first, statement, content in _statements(text):
        if statement.lstrip().startswith("["):
            table = _header(content, counts)
            for end in range(1, len(table) + 1):
                found.setdefault(table[:end], first)
            continue
        last = first
        for line, so_far in _growing(statement, first):
            _mark(found, table, so_far, line)
            last = line + 1
        _mark(found, table, content, last)
    return found


def _split(text: str) -> list[str]:
    # not splitlines: TOML ends lines at \n alone
    return text.replace("\r\n", "\n").split("\n")


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """First line, text and content of each statement that can be read, up to the first that can't."""
    lines, start = _split(text), 0
    while start < len(lines):
        for end in range(start + 1, len(lines) + 1):
            if end > start + 1 and not MAY_END.search(lines[end - 1]):
                continue
            statement = "\n".join(lines[start:end])
            if (content := _read(statement)) is not None:
                yield start + 1, statement, content
                start = end
                break
        else:
            return


def _read(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None


def _first_unread(text: str) -> int:
    """The line of the first statement that can't be read."""
    line = 1
    for first, statement, _ in _statements(text):
        line = first + statement.count("\n") + 1
    return min(line, len(_split(text)))


def _header(content: dict[str, Any], counts: dict[Location, int]) -> Location:
    """The table that ``[a.b]`` or ``[[a.b]]`` opens; ``counts`` holds how many tables each list has so far."""
    location: Location = ()
    node: Any = content
    while node:
        ((key, node),) = node.items()
        location = (*location, key)
        if isinstance(node, list):
            counts[location] = counts.get(location, 0) + 1
            node = node[0]
        if location in counts:
            location = (*location, counts[location] - 1)
    return location


def _growing(statement: str, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """What a list over several lines holds up to each of them but the last, with the number of the line."""
    lines = statement.split("\n")
    for count in range(1, len(lines) if len(lines) <= MOST_LINES else 0):
        start = "\n".join(lines[:count])
        for end in ("\n]", "\n]]"):
            if (content := _read(start + end)) is not None:
                yield first + count - 1, content
                break


def _mark(found: dict[Location, int], location: Location, value: Any, line: int) -> None:
    """``line`` for every part of ``value`` that has none yet."""
    if location:
        found.setdefault(location, line)
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        _mark(found, (*location, key), part, line)


def _hint(line: str) -> str:
    """What to do about slips that people make who write Python all day."""
    if _BARE_FRACTION.search(line):
        return '; a fraction stands in quotes: eps = "8/255"'
    if word := _WORD_OF_PYTHON.search(line):
        return {
            "True": "; TOML writes true",
            "False": "; TOML writes false",
            "None": "; leave the key out where there is no value",
        }[word[1]]
    return ""
