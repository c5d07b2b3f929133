"""An evaluation as its JSON file holds it, and back: ``evaluation_of(found.to_json())`` is ``found``."""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from uncannyvalley.detect.evaluation.outcome import Evaluation
from uncannyvalley.errors import InputError


def evaluation_of(entries: Mapping[str, Any]) -> Evaluation:
    """The evaluation whose ``to_json`` gave ``entries``; numbers that are null there are NaN.

    Raises InputError, naming the entry, where one is missing or is no such value.
    """
    return _read(Evaluation, entries, "evaluation")


def _read(kind: Any, value: Any, where: str) -> Any:
    """``value`` as a ``kind``: a dataclass, a mapping, a tuple, one or none of a kind, or a plain value."""
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _read(parts[0], value, where)
    if origin is tuple:
        return _tuple(parts, value, where)
    if origin is not None:
        return _mapping(parts, value, where)
    return _plain(kind, value, where)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise _refused(where, f"a mapping of {kind.__name__}", value)
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    if missing := [name for name in names if name not in value]:
        raise InputError(f"{where} lacks {', '.join(missing)}; evaluate again")
    return kind(**{name: _read(hints[name], value[name], f"{where}.{name}") for name in names})


def _tuple(parts: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    is_open = len(parts) == 2 and parts[1] is Ellipsis
    if not isinstance(value, (list, tuple)) or not (is_open or len(value) == len(parts)):
        raise _refused(where, "a list" if is_open else f"a list of {len(parts)}", value)
    kinds = [parts[0]] * len(value) if is_open else parts
    return tuple(
        _read(kind, one, f"{where}[{number}]")
        for number, (kind, one) in enumerate(zip(kinds, value, strict=True))
    )


def _mapping(parts: tuple[Any, ...], value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _refused(where, "a mapping", value)
    keys, values = parts
    try:
        return {keys(name): _read(values, one, f"{where}.{name}") for name, one in value.items()}
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{where} has a name that is no {keys.__name__} ({error}); evaluate again"
        ) from error


def _plain(kind: type, value: Any, where: str) -> Any:
    if kind is float:
        if value is None:
            return math.nan
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise _refused(where, f"a {kind.__name__}", value)


def _refused(where: str, wanted: str, value: Any) -> InputError:
    return InputError(f"{where} must be {wanted}, got {str(value)[:60]!r}; evaluate again")
