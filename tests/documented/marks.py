"""What is written in a comment directly above a block: that it is not run, and why, or how it ends."""

import re
from dataclasses import dataclass

from documented.blocks import RUN

_NOT_RUN = re.compile(r"not run: (?P<reason>\S.*)")
_EXIT_CODE = re.compile(r"exit code (?P<code>\d+)")
_COMMENT_BEFORE = re.compile(r"<!--(?P<text>[^\n]*?)-->[ \t]*\n\s*\Z")
_BLOCK = re.compile(
    r"^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n.*?^(?P=fence)[ ]*$", re.DOTALL | re.MULTILINE
)
_INDENTED = re.compile(
    r"\n\n    (?P<command>(?:[A-Z_]+=\S+ )*(?:uncanny|python\S*|make|pip|\.venv/bin/\S+) [^\n]*)"
)


@dataclass(frozen=True)
class Mark:
    """not_run is the reason, None where the block is run; exit_code is that of its last command."""

    not_run: str | None = None
    exit_code: int = 0


class UnknownMark(ValueError):
    """A comment above a block that says nothing known: a mark that was mistyped must not pass for none."""


def mark_before(text: str, start: int) -> Mark:
    """The mark in the line above the block that begins at ``start``.

    Raises UnknownMark for any other comment there.
    """
    found = _COMMENT_BEFORE.search(text[:start])
    said = found["text"].strip() if found is not None else ""
    if not said or said == "sizes as written":
        return Mark()
    if (not_run := _NOT_RUN.fullmatch(said)) is not None:
        return Mark(not_run=not_run["reason"])
    if (ending := _EXIT_CODE.fullmatch(said)) is not None:
        return Mark(exit_code=int(ending["code"]))
    raise UnknownMark(f"unknown mark {said!r} above a block; write 'not run: the reason' or 'exit code 2'")


def marks_of(text: str) -> list[Mark]:
    """The marks of all blocks of a page that would be run."""
    blocks = [one for one in _BLOCK.finditer(text) if one["language"] in RUN]
    return [mark_before(text, one.start()) for one in blocks]


def indented_commands(text: str) -> list[str]:
    """Commands in indented blocks, which nobody runs: they belong into a ```bash fence."""
    return [one["command"] for one in _INDENTED.finditer(_BLOCK.sub("", text))]
