"""The command that is running, as it can be typed again."""

import shlex
from typing import Any

import typer


def command_line(context: typer.Context) -> str:
    """The command that is running, with the options that were given."""
    words = ["uncanny", *_names(context)]
    for one in context.command.params:
        value = context.params.get(one.name or "")
        if one.param_type_name == "argument":
            words += [str(value)] if value is not None else []
        elif value != one.get_default(context) and value is not None:
            words += _option(one, value)
    return shlex.join(words)


def _names(context: typer.Context) -> list[str]:
    """Of the command and the groups it is in; the program itself may have been started under any name."""
    if context.parent is None:
        return []
    return [*_names(context.parent), context.info_name or ""]  # type: ignore[arg-type]


def _option(one: Any, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [one.opts[0]] if value else list(one.secondary_opts[:1])
    values = value if isinstance(value, (list, tuple)) else [value]
    return [word for each in values for word in (one.opts[0], str(each))]
