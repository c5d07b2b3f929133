"""Docstrings of this house, which are prose, as HTML: paragraphs, two columns of names and meanings, formulas, examples.

A docstring is written to be read in a terminal, where formulas are Unicode and a bar is a bar. So nothing in it is
taken for Markdown, except code between backticks and a stressed word between stars.
"""

import html
import re
from collections.abc import Iterator

import griffe

_COLUMNS = re.compile(r"\S.{0,34}?\s{2,}(?P<meaning>\S.*)")
_CODE = re.compile(r"(``?)(.+?)\1")
_STRESSED = re.compile(r"(?<![\w*])\*(\w[\w ,-]*)\*(?![\w*])")
_UNDERLINE = re.compile(r"-{3,}")


class ProseDocstrings(griffe.Extension):
    """Lays out each docstring before it is rendered."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Called for each module, class, function and attribute once it is read."""
        if obj.docstring is not None:
            obj.docstring.value = laid_out(obj.docstring.value)


def laid_out(text: str) -> str:
    """The HTML of a docstring; examples stay fenced, so that they are coloured as code."""
    return "\n\n".join(_block(lines) for lines in _paragraphs(text))


def _paragraphs(text: str) -> Iterator[list[str]]:
    """Runs of lines between empty ones; an underlined title is a run of its own."""
    run: list[str] = []
    for line in [*text.splitlines(), ""]:
        if _UNDERLINE.fullmatch(line) and len(run) == 1:
            yield [f"{run[0]}\n{line}"]
            run = []
        elif line.strip():
            run.append(line.rstrip())
        elif run:
            yield run
            run = []


def _block(lines: list[str]) -> str:
    if "\n" in lines[0]:
        return f"<p><strong>{_inline(lines[0].splitlines()[0])}</strong></p>"
    if lines[0].startswith(">>>"):
        shown = [re.sub(r"\s*# doctest: .*$", "", line) for line in lines]
        return "\n".join(["```pycon", *shown, "```"])
    if all(line.startswith("    ") for line in lines):
        return "<pre>" + "\n".join(html.escape(line[4:]) for line in lines) + "</pre>"
    if (rows := _rows(lines)) is not None:
        return _table(rows)
    if lines[0].startswith("- "):
        return "<ul>" + "".join(f"<li>{_inline(one)}</li>" for one in _items(lines)) + "</ul>"
    return f"<p>{_inline(' '.join(line.strip() for line in lines))}</p>"


def _rows(lines: list[str]) -> list[tuple[str, str]] | None:
    """Names and meanings, where the lines are two columns; None where they are not."""
    columns = [one.start("meaning") for one in map(_COLUMNS.fullmatch, lines) if one is not None]
    if not columns or lines[0].startswith(" "):
        return None
    column = columns[0]
    rows: list[tuple[str, str]] = []
    for line in lines:
        name, meaning = line[:column].rstrip(), line[column:]
        if not meaning or meaning.startswith(" ") or line[column - 1] != " ":
            return None
        if name:
            rows.append((name, meaning))
        else:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {meaning}")
    return rows


def _items(lines: list[str]) -> list[str]:
    items: list[str] = []
    for line in lines:
        if line.startswith("- "):
            items.append(line[2:])
        else:
            items[-1] += f" {line.strip()}"
    return items


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><td><code>{html.escape(name.strip('`'))}</code></td><td>{_inline(meaning)}</td></tr>"
        for name, meaning in rows
    )
    return f"<table><tbody>{cells}</tbody></table>"


def _inline(text: str) -> str:
    return _STRESSED.sub(r"<em>\1</em>", _CODE.sub(r"<code>\2</code>", html.escape(text, quote=False)))
