"""The points of an axis: what the lists in a plan's tables span, each with its label."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uncannyvalley.study.plan_file.faults import Fault
from uncannyvalley.study.plan_file.labels import label_of
from uncannyvalley.study.plan_file.paths import FILE_ARGUMENT, found_data, found_model, found_path, is_fitted
from uncannyvalley.study.plan_file.values import One, Table, shown

ARGUMENT = "arguments."
"""What stands before the names of arguments among settings."""

_FOUND = {
    "model": found_model, "weights": found_path, "data": found_data, "validation": found_data, "test": found_data,
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One point of an axis: its label, and its settings by their keys in the plan ("eps", "arguments.width")."""

    label: str
    settings: Mapping[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """Settings with a key of their own."""
        return {key: value for key, value in self.settings.items() if not key.startswith(ARGUMENT)}

    @property
    def arguments(self) -> dict[str, str]:
        return {
            key.removeprefix(ARGUMENT): text
            for key, text in self.settings.items()
            if key.startswith(ARGUMENT)
        }


def choices_of(tables: Sequence[Table], key: str, folder: Path, faults: list[Fault]) -> tuple[Choice, ...]:
    """The points that the ``tables`` under ``key`` of a plan span; paths are made absolute from ``folder``.

    A label that two points share goes into ``faults``.
    """
    found: dict[str, tuple[int, dict[str, Any], Choice]] = {}
    for number, table in enumerate(tables):
        for written, choice in _points(table, folder):
            # some file systems tell no capitals from small letters
            other, before, first = found.setdefault(choice.label.casefold(), (number, written, choice))
            if first is not choice:
                where = "here" if other == number else f"in {key}[{other}]"
                faults.append(Fault((key, number), _shared(first.label, where, written, before)))
    return tuple(choice for _, _, choice in found.values())


def spelled_out(choices: Mapping[str, Sequence[Choice]], axes: Mapping[str, str]) -> dict[str, list[Any]]:
    """Key of a table → the points of its axis, each a table of its own with its label as its name."""
    return {
        key: [
            {"name": one.label, **one.options} | ({"arguments": one.arguments} if one.arguments else {})
            for one in choices[axis]
        ]
        for key, axis in axes.items()
    }


def _points(table: Table, folder: Path) -> Iterator[tuple[dict[str, Any], Choice]]:
    """Settings as they were written, and the point they make."""
    name = getattr(table, "name", None)
    spread = {key for key, values in table.values().items() if not isinstance(values, One)}
    for written in table.combinations():
        found = {
            key: _FOUND[key](value, folder) if key in _FOUND else value for key, value in written.items()
        }
        if FILE_ARGUMENT in found and is_fitted(found["model"]):
            found[FILE_ARGUMENT] = found_model(found[FILE_ARGUMENT], folder)
        yield written, Choice(label_of(written, name, spread), found)


def _shared(label: str, where: str, one: dict[str, Any], other: dict[str, Any]) -> str:
    if one == other:
        return f"{label!r} is {where} already, with the same settings; leave one of them out"
    key = next(key for key in [*one, *other] if one.get(key) != other.get(key))
    differ = f"{key} = {shown(other.get(key))} and {key} = {shown(one.get(key))}"
    return f"{label!r} is {where} already; give tables that differ ({differ}) names of their own (name = …)"
