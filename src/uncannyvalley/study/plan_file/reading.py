"""A plan file of any kind: its text, its validated content, and the points that its tables span."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from uncannyvalley.errors import InputError
from uncannyvalley.study.plan_file.choices import Choice, choices_of
from uncannyvalley.study.plan_file.faults import Fault, Sheet, faults_of, refusal
from uncannyvalley.study.plan_file.lines import read_toml
from uncannyvalley.study.plan_file.tables import SeededTable

MOST_CELLS = 1_000_000

P = TypeVar("P", bound=SeededTable)


def read_text(path: Path) -> str:
    """The text of a plan file; InputError for a file that can't be read."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a plan file, as {path / 'plan.toml'}")
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")  # editors of some systems begin files with a mark
    except FileNotFoundError as error:
        raise InputError(f"plan file {str(path)!r} does not exist; check the path") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: this is no UTF-8 text; save the plan as UTF-8") from error
    except OSError as error:
        raise InputError(f"plan file {str(path)!r} cannot be read: {error.strerror or error}") from error


def read_content(text: str, name: str, shortest: str) -> dict[str, Any]:
    """The tables of a plan's text as TOML; InputError where it is none, or empty: ``shortest`` is the shortest plan."""
    content = read_toml(text, name)
    if not content:
        raise InputError(f"{name}:1: the plan is empty; the shortest one is {shortest}")
    return content


def validated(
    plan: type[P], sheet: Sheet, text: str, name: str, content: dict[str, Any], context: Any = None
) -> P:
    """The table of the whole file; InputError for all faults of its content at once."""
    try:
        return plan.model_validate(content, context=context)
    except ValidationError as error:
        raise refusal(name, text, content, faults_of(error, content, sheet)) from error


def spanned(
    plan: SeededTable, axes: Mapping[str, str], text: str, name: str, content: dict[str, Any], folder: Path
) -> dict[str, tuple[Choice, ...]]:
    """Axis → the points that its table spans, for ``axes``: key of a table → axis. Paths are looked for in ``folder``.

    Raises InputError for a grid that is too large and for labels that two points share.
    """
    count = math.prod(sum(table.size() for table in getattr(plan, key)) for key in axes)
    count *= len(plan.all_seeds)
    if count > MOST_CELLS:
        too_many = f"the grid has {count} runs, at most {MOST_CELLS} are possible; split the plan"
        raise refusal(name, text, content, [Fault((), too_many)])
    faults: list[Fault] = []
    choices = {axis: choices_of(getattr(plan, key), key, folder, faults) for key, axis in axes.items()}
    if faults:
        raise refusal(name, text, content, faults)
    return choices
