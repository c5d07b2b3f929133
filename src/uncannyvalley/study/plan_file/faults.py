"""What is wrong with a plan file, all of it at once, each with its line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.study.plan_file.lines import Location, lines_of
from uncannyvalley.study.plan_file.values import Misfits, shown

MOST_FAULTS = 10
"""Faults that are shown; the rest are counted."""

EXPECTED = {
    "int_type": "a whole number", "float_type": "a number", "finite_number": "a finite number", "string_type": "text in quotes",
    "bool_type": "true or false", "list_type": "a list in [ ]", "dict_type": "a table", "model_type": "a table",
    "greater_than_equal": "at least {ge}", "greater_than": "a number above {gt:g}", "less_than_equal": "at most {le}",
    "less_than": "a number below {lt}", "string_too_short": "text that is not empty",
}  # fmt: skip
"""pydantic's types of errors → what was expected."""

SEED_TAGS = ("a list of seeds", "a range of seeds")
"""What pydantic writes into the place of a fault among the seeds."""


@dataclass(frozen=True)
class Sheet:
    """What may stand in a kind of plan file.

    plan     the table of the whole file
    tables   key → table of what stands under it, each a list; seeds among them
    missing  key → what to do where a table lacks it
    """

    plan: type[BaseModel]
    tables: Mapping[str, type[BaseModel]]
    missing: Mapping[str, str]


class Fault(NamedTuple):
    """Where, as in the file's own tables, and what."""

    location: Location
    message: str


def refusal(name: str, text: str, content: dict[str, Any], faults: Sequence[Fault]) -> InputError:
    """One error for all ``faults`` of the plan ``name``: a line "NAME:LINE: KEY: message" for each."""
    lines = lines_of(text)
    placed = sorted({(_line(lines, one.location), *_said(content, one)) for one in faults})
    said = [f"{name}:{line}: {where}{message}" for line, where, message in placed[:MOST_FAULTS]]
    more = len(placed) - MOST_FAULTS
    return InputError("\n".join([*said, f"{name}: and {more} more"] if more > 0 else said))


def _line(lines: dict[Location, int], location: Location) -> int:
    """The line of a value, or of the nearest table or list around it."""
    while location and location not in lines:
        location = location[:-1]
    return lines.get(location, 1)


def _said(content: dict[str, Any], fault: Fault) -> tuple[str, str]:
    """The key as it stands in the file, "attacks[1].eps: ", and the message."""
    where = ""
    node: Any = content
    for part in fault.location:
        is_there = part in node if isinstance(node, dict) else isinstance(node, list)
        if not is_there:  # it is missing, or pydantic put it around a value
            break
        node = node[part]
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
    return (f"{where.removeprefix('.')}: " if where else ""), fault.message


def faults_of(error: ValidationError, content: dict[str, Any], sheet: Sheet) -> list[Fault]:
    """The faults that pydantic found in ``content``, in our words."""
    found = []
    for one in error.errors(include_url=False):
        location, raised = one["loc"], one.get("ctx", {}).get("error")
        parts = (
            raised.faults
            if isinstance(raised, Misfits)
            else [((), _message(one, _in_file(location, content), sheet))]
        )
        found += [Fault(_in_file((*location, *within), content), message) for within, message in parts]
    return found


def _in_file(location: Location, content: dict[str, Any]) -> Location:
    """Without the parts of pydantic's location that stand for no part of the file."""
    location = tuple(part for part in location if part not in SEED_TAGS)
    sets = content.get("measures")
    if location[:1] == ("measures",) and isinstance(sets, list) and all(isinstance(one, str) for one in sets):
        return ("measures", *location[3:])
    return location


def _message(error: Any, location: Location, sheet: Sheet) -> str:
    kind, got, last = error["type"], error["input"], location[-1] if location else ""
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "extra_forbidden":
        return _unknown_key(location, sheet)
    if kind == "missing":
        return f"{last} is missing; {sheet.missing[str(last)]}"
    if kind == "too_short":
        return "the list is empty; leave the key out for its default"
    if kind == "list_type" and isinstance(got, dict) and last in sheet.tables:
        return f"expected a list of tables; write [[{last}]] with two brackets"
    if kind == "list_type" and last == "seeds":
        return f"expected a list, as [0, 1, 2], or {{first = 0, count = 100}}; got {shown(got)}"
    if kind not in EXPECTED:
        return f"{error['msg']}, got {shown(got)}"
    return f"expected {EXPECTED[kind].format(**error.get('ctx', {}))}, got {shown(got)}"


def _unknown_key(location: Location, sheet: Sheet) -> str:
    """Most keys that are not known stand in another table than their author thinks: TOML's tables end at the next header."""
    key, inside = str(location[-1]), str(location[0])
    if len(location) == 1:
        homes = [
            f"[[{name}]]"
            for name, table in sheet.tables.items()
            if name != "seeds" and key in table.model_fields
        ]
        if homes:
            return f"{key} is no key of the whole plan but of {' or '.join(homes)}"
        return str(unknown_name("key", key, sheet.plan.model_fields))
    if key in sheet.plan.model_fields:
        return f"{key} is a key of the whole plan, not of [[{inside}]]: write it above the first table"
    return str(unknown_name("key", key, sheet.tables[inside].model_fields))
