"""Which columns and questions a budget buys: fixed before any attack is seen.

One forward tells confidence, norm and sharpness at the head. Copies tell more: a pushed image loses *support* for its class
when it is mirrored or moved by a pixel, and its features *drift* further on the way. Two more questions ask the image itself,
at no forward: its *grain*, and how that differs from axis to axis (its *pattern*). They are limited, so that grain
alone, which noise and compression have too, flags hardly an image.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from uncannyvalley.detect.questions import Question
from uncannyvalley.errors import InputError

MOVES = (
    "mirror", "mirror+strong_blur", "left", "diagonal", "mirror+left", "half_shift", "up", "right", "down",
)  # fmt: skip
"""Copies that ask for support and drift, the most telling first: no budget beyond 10 buys more."""

ONE_FORWARD = ("log_odds", "log_norm", "log_relative_sharpness", "energy")

GRAINS = ("grain", "grain_across", "grain_down")

GRAIN_LIMIT = 4.0
"""Nats of a question about the image alone."""

LARGEST_BUDGET = 64


@dataclass(frozen=True)
class Recipe:
    """Columns to read and questions to ask about them; ``name`` is for people."""

    name: str
    columns: tuple[str, ...]
    questions: tuple[Question, ...]


def recipe_of(budget: int, allowed: Collection[str] | None = None) -> Recipe:
    """What is asked with so many forwards a decision, the image's own included.

    ``allowed``: the changes that leave the class alone on the data at hand; None: all.
    Raises InputError for budgets below 1.
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or not 1 <= budget <= LARGEST_BUDGET:
        raise InputError(
            f"budget must be a whole number of forwards from 1 to {LARGEST_BUDGET}, got {budget!r}"
        )
    moves = [one for one in MOVES if allowed is None or one in allowed][: budget - 1]
    questions = _of_copies(moves) if moves else (Question("jointly", dict.fromkeys(ONE_FORWARD, 1.0)),)
    return asking(f"budget {budget}", questions)


def asking(name: str, questions: Sequence[Question]) -> Recipe:
    """The recipe of those questions: it reads the columns that they ask about, each once."""
    columns = dict.fromkeys(column for one in questions for column in (*one.columns, *one.given))
    return Recipe(name, tuple(columns), tuple(questions))


def _of_copies(moves: Sequence[str]) -> tuple[Question, ...]:
    at = ",".join(moves)
    return (
        Question("support", {f"log_odds@{at}": 1.0}, "low"),
        Question("drift", {f"drift@{at}": 1.0}, "high"),
        Question("grain", {"grain": 1.0}, "high", weight=0.5, limit=GRAIN_LIMIT),
        Question("pattern", dict.fromkeys(GRAINS, 1.0), "both", weight=0.5, limit=GRAIN_LIMIT),
    )
