"""Rules that are fixed before anything is measured, and what they make of a number with its interval."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uncannyvalley.analysis.summary import Figure
from uncannyvalley.errors import InputError


class Verdict(StrEnum):
    """What is said of a claim, or of one part of it."""

    HOLDS = "holds"
    PARTLY = "holds partly"
    FAILS = "does not hold"
    OPEN = "not settled"


@dataclass(frozen=True)
class Part:
    """One judged statement of a claim.

    figure   what was measured, with its 95 % interval; NaN where nothing was
    counts   False for what is measured beside a claim and does not decide it
    source   where the number comes from, if it was not measured in this run
    """

    text: str
    rule: str
    figure: Figure
    verdict: Verdict
    counts: bool = True
    source: str = ""
    shown: str = ".2f"

    def __str__(self) -> str:
        one = self.figure
        measured = "not measured" if math.isnan(one.value) else f"{one:{self.shown}}"
        if one.low == one.high:  # counted, or printed without an interval
            measured = f"{one.value:{self.shown}}"
        measured = measured.replace("inf", "∞")
        where = f", {self.source}" if self.source else ""
        verdict = str(self.verdict) if self.counts else f"beside: {self.verdict}"
        return f"{verdict:<23}{measured:<24}{self.text} ({self.rule}{where})"


@dataclass(frozen=True)
class Criterion:
    """A statement and the limit that decides it: it holds if the whole interval lies beyond the limit, fails if the
    whole interval lies on the other side of it, and is not settled otherwise.

    side    "above" or "below" the limit
    shown   how the number is printed, a format
    """

    text: str
    side: Literal["above", "below"]
    limit: float
    shown: str = ".2f"
    counts: bool = True

    def __post_init__(self) -> None:
        if self.side not in ("above", "below"):
            raise InputError(f'a criterion lies "above" or "below" its limit, got {self.side!r}')

    @property
    def rule(self) -> str:
        return f"surely {self.side} {self.limit:{self.shown}}"

    def judge(self, figure: Figure, *, of: str = "", source: str = "") -> Part:
        """The statement with its verdict. ``of``: whom it is about, where it is asked of several."""
        text = f"{of}: {self.text}" if of else self.text
        rule = self.rule.removeprefix("surely ") if figure.low == figure.high else self.rule
        return Part(text, rule, figure, self._verdict(figure), self.counts, source, self.shown)

    def _verdict(self, figure: Figure) -> Verdict:
        low, high = figure.low, figure.high
        if any(math.isnan(one) for one in (figure.value, low, high)):
            return Verdict.OPEN
        beyond, short = (low > self.limit, high < self.limit)
        if self.side == "below":
            beyond, short = short, beyond
        return Verdict.HOLDS if beyond else Verdict.FAILS if short else Verdict.OPEN


def combined(parts: Sequence[Part]) -> Verdict:
    """The claim's verdict: what all of its parts say, or "holds partly" if only some hold.

    Where none holds, one part that fails is enough for "does not hold". Parts that do not count are left out.
    """
    verdicts = {part.verdict for part in parts if part.counts}
    if verdicts == {Verdict.HOLDS}:
        return Verdict.HOLDS
    if Verdict.HOLDS in verdicts or Verdict.PARTLY in verdicts:
        return Verdict.PARTLY
    return Verdict.FAILS if Verdict.FAILS in verdicts else Verdict.OPEN


@dataclass(frozen=True)
class Outcome:
    """What one claim came to.

    parts   the judged statements          lines  tables and remarks, as printed
    short   the measured in one line       draw   writes the figure to a path
    numbers further numbers for the JSON file
    """

    parts: Sequence[Part]
    short: str
    lines: Sequence[str]
    draw: Callable[[Path], None]
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        return combined(self.parts)


def share(flags: np.ndarray) -> Figure:
    """Share of true values with its Wilson interval at 95 %, which is honest at 0 and 1 too; NaN of nothing."""
    return share_of(int(np.sum(flags)), len(flags))


def share_of(count: int, total: int) -> Figure:
    """``count`` of ``total`` with the Wilson interval at 95 %."""
    if not 0 <= count <= total:
        raise InputError(f"a share is of 0 to {total} cases, got {count}")
    if total == 0:
        return Figure(math.nan, math.nan, math.nan)
    z = 1.959964
    value = count / total
    middle = (value + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(value * (1 - value) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return Figure(value, max(0.0, middle - half), min(1.0, middle + half))


def point(value: float) -> Figure:
    """A number that was counted or printed without an interval."""
    return Figure(float(value), float(value), float(value))
