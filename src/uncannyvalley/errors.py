"""The one error that users see, the nearest known name for a mistyped one, and what another error says in one line."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave cannot be used: says what was expected, what came, and what to do.

    The command line prints the message alone and exits with code 2.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for ``name``, which is none of ``known``, with the nearest of them."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return InputError(f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}")


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
