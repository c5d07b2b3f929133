"""Blocks of a page as sybil finds them: what is run, what is hidden from readers, what is a file of theirs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sybil import Document, Lexeme, Region
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

RUN = ("python", "bash")
"""Languages of blocks that are run; all others show files and what was printed."""

_SHOWN = RawFencedCodeBlockLexer(
    re.compile(r'(?P<language>\w+)(?: title="(?P<title>[^"\n]+)")?[ ]*$\n', re.MULTILINE)
)
_HIDDEN = DirectiveInHTMLCommentLexer(directive="invisible-code-block", arguments=r"\w+")
_AS_WRITTEN = "<!-- sizes as written -->"


@dataclass(frozen=True)
class Block:
    """title names the file of the page's folder that a reader would have written."""

    language: str
    source: Lexeme
    title: str | None = None


def blocks_of(document: Document) -> Iterable[Region]:
    """The regions of all blocks to run or to write; their evaluator is set by the caller."""
    for region in _SHOWN(document):
        found = region.lexemes
        if found["language"] in RUN or found["title"]:
            region.parsed = Block(found["language"], found["source"], found["title"])
            yield region
    for region in _HIDDEN(document):
        region.parsed = Block(region.lexemes["arguments"], region.lexemes["source"])
        yield region


def sizes_as_written(text: str) -> bool:
    """Whether a page says that its sizes are small already: they are never lowered then."""
    return _AS_WRITTEN in text
