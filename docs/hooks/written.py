"""What hooks write into pages: tables of Markdown, and what an object says of itself."""

import importlib
import inspect


def named(name: str) -> object:
    """What is called ``name`` below ``uncannyvalley``, as ``record`` or ``study.tracking.to_wandb``."""
    import uncannyvalley

    place, _, last = name.rpartition(".")
    home = importlib.import_module(f"uncannyvalley.{place}") if place else uncannyvalley
    return getattr(home, last)


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    return lines + [f"| {' | '.join(cell(one) for one in row)} |" for row in rows]


def cell(text: str) -> str:
    """Text of a cell: its bars and stars are no markup; what stands between backticks is code."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def first_sentence(found: object) -> str:
    """The first paragraph of a docstring in one line."""
    paragraph = " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split())
    return paragraph.replace("``", "`")
