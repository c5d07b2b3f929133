"""Strips of suffixes: start → ridge → flip → valley → last, each with its target's tokens and their log κ."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from uncannyvalley.analysis.common_axis import SHARPNESS
from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.report.suffixes.legible import legible
from uncannyvalley.report.suffixes.shades import Scale
from uncannyvalley.trajectory import Trajectory

MARKS = {"ridge": "ridge_step", "flip": "flip_step", "valley": "valley_step", "last": "steps"}

MOST_PIECES = 80
"""Tokens of a suffix or a target that are shown; what is left out is counted."""

MOST_CHARACTERS = 40
"""Of one token."""


@dataclass(frozen=True)
class Piece:
    """One token of a suffix, legible, and whether it is another than in the line before."""

    text: str
    changed: bool


@dataclass(frozen=True)
class TargetToken:
    """One token of the target, legible, and log κ of predicting it."""

    text: str
    sharpness: float

    @property
    def number(self) -> str:
        """log κ as shown."""
        return "–" if math.isnan(self.sharpness) else f"{self.sharpness:.1f}"


@dataclass(frozen=True)
class SuffixLine:
    """One marked step; ``suffix`` is empty for soft prompts, ``perplexity`` then NaN. left_out: tokens not shown."""

    step: int
    marks: tuple[str, ...]
    suffix: tuple[Piece, ...]
    target: tuple[TargetToken, ...]
    target_loss: float
    perplexity: float
    is_greedy: bool
    changed: int
    left_out: tuple[int, int]

    @property
    def name(self) -> str:
        """Its marks, as "ridge = flip"."""
        return " = ".join(self.marks)

    @property
    def perplexity_text(self) -> str:
        return "–" if math.isnan(self.perplexity) else f"{self.perplexity:.4g}"


@dataclass(frozen=True)
class SuffixStrip:
    """The marked steps of one prompt in walking order."""

    example: int
    goal: str
    wanted: str
    lines: tuple[SuffixLine, ...]


def scale_of(strips: Iterable[SuffixStrip]) -> Scale:
    """One scale of colours for all target tokens of some strips."""
    return Scale.of(token.sharpness for strip in strips for line in strip.lines for token in line.target)


def suffix_strips(tokens: Trajectory, found: Phases, count: int) -> list[SuffixStrip]:
    """Strips of the first ``count`` prompts that ``found`` speaks of, from the token rows of the attacked model."""
    examples = found.column("example")[:count].tolist()
    marked = dict(zip(examples, map(_marks, found.records()[:count]), strict=True))
    rows = _rows_at(tokens, found.restart, marked)
    return [_strip(example, steps, rows) for example, steps in marked.items()]


def _marks(row: dict[str, Any]) -> dict[int, tuple[str, ...]]:
    """Step → the names of what happens there, in walking order."""
    steps: dict[int, list[str]] = {0: ["start"]}
    for name, column in MARKS.items():
        if (step := row[column]) is not None:
            steps.setdefault(int(step), []).append(name)
    return {step: tuple(names) for step, names in sorted(steps.items())}


Rows = dict[tuple[int, int], list[dict[str, Any]]]


def _rows_at(tokens: Trajectory, restart: int, marked: dict[int, dict[int, tuple[str, ...]]]) -> Rows:
    """(example, step) → its token rows of the first model, in order."""
    table = tokens.table
    places = np.stack([table[name].to_numpy() for name in ("example", "step")], axis=1)
    here = (table["restart"].to_numpy() == restart) & (table["model"].to_numpy() == 0)
    here &= np.isin(places[:, 0], list(marked))
    wanted = [
        row for row in np.flatnonzero(here).tolist() if int(places[row, 1]) in marked[int(places[row, 0])]
    ]
    names = [
        "example",
        "step",
        "token",
        "token_text",
        "goal",
        "target",
        "suffix",
        "suffix_ids",
        "adversarial",
    ]
    names += [
        one
        for one in ("suffix_tokens", SHARPNESS, "target_loss", "log_perplexity")
        if one in table.column_names
    ]
    found: Rows = {}
    for row in table.select(names).take(wanted).to_pylist():
        found.setdefault((row["example"], row["step"]), []).append(row)
    return {place: sorted(rows, key=lambda one: one["token"]) for place, rows in found.items()}


def _strip(example: int, steps: dict[int, tuple[str, ...]], rows: Rows) -> SuffixStrip:
    lines, before = [], None
    for step, marks in steps.items():
        here = rows[example, step]
        lines.append(_line(step, marks, here, before))
        before = here[0]
    first = rows[example, 0][0]
    return SuffixStrip(
        example, legible(first["goal"].strip(), 200), legible(first["target"].strip(), 200), tuple(lines)
    )


def _line(
    step: int, marks: tuple[str, ...], rows: list[dict[str, Any]], before: dict[str, Any] | None
) -> SuffixLine:
    first = rows[0]
    texts = _texts(first)
    changed = [False] * len(texts) if before is None else _changed(_keys(before), _keys(first))
    pieces = [Piece(legible(text, MOST_CHARACTERS), new) for text, new in zip(texts, changed, strict=True)]
    target = [
        TargetToken(legible(row["token_text"], MOST_CHARACTERS), row.get(SHARPNESS, math.nan)) for row in rows
    ]
    log_perplexity = first.get("log_perplexity", math.nan)
    return SuffixLine(
        step, marks, tuple(pieces[:MOST_PIECES]), tuple(target[:MOST_PIECES]), first.get("target_loss", math.nan),
        math.exp(min(log_perplexity, 700.0)), first["adversarial"], sum(changed),
        (max(0, len(pieces) - MOST_PIECES), max(0, len(target) - MOST_PIECES)),
    )  # fmt: skip


def _texts(row: dict[str, Any]) -> list[str]:
    """The suffix in pieces: its tokens, or words where their texts were not recorded."""
    known = row.get("suffix_tokens")
    return list(known) if known else re.findall(r"\s*\S+|\s+$", row["suffix"] or "")


def _keys(row: dict[str, Any]) -> Sequence[Any]:
    """What tells pieces apart: two tokens may have one text."""
    return list(row["suffix_ids"]) if row.get("suffix_tokens") else _texts(row)


def _changed(before: Sequence[Any], now: Sequence[Any]) -> list[bool]:
    """Which pieces are new: by place where both are of one length, else by the longest runs in common."""
    if len(before) == len(now):
        return [one != other for one, other in zip(before, now, strict=True)]
    new = [True] * len(now)
    for block in SequenceMatcher(None, before, now, autojunk=False).get_matching_blocks():
        new[block.b : block.b + block.size] = [False] * block.size
    return new
