"""When an attack on a detector fails for reasons of its own: doubts that make a low success rate mean nothing.

Six of them, after Carlini et al. 2019 (arXiv 1902.06705) and the indicators of failure of Pintor et al. 2022
(arXiv 2106.09947). Each asks whether the success could be higher than it was found to be; at 100 % none can fire.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from uncannyvalley.analysis.diagnostics import Diagnostic
from uncannyvalley.detect.adaptive.attacker import BLACK_BOX, CHANCE, WHITE_BOX, Attacker
from uncannyvalley.detect.adaptive.best import Best
from uncannyvalley.detect.adaptive.table import AdaptiveRow

SLACK = 0.05
"""Share of the images by which a success may rise, or of the gradients that may be zero, without a doubt."""

DOUBTED = 20
"""Images, the first that were attacked, of which those still unbeaten are attacked again with more effort: of these, one more success is no doubt and two are."""

Rerun = Callable[[Attacker, np.ndarray], np.ndarray]
"""(attacker, places of images) → which of them it beats."""


def doubts_of_search(best: Best, seen: np.ndarray, kept: np.ndarray) -> tuple[Diagnostic, ...]:
    """What one search shows by itself.

    seen, kept  bool (n,): images for which a success was seen on the way, and for which the image that came back is one
    """
    flat = best.flat / best.needed if best.needed else 0.0
    lost = float((seen & ~kept).mean()) if len(seen) else 0.0
    unbeaten = bool((~kept).any())
    return (
        Diagnostic(
            "zero gradients of the score", flat, SLACK, unbeaten and flat > SLACK,
            "Share of the misclassified and flagged iterates at which the score's gradient in the image is exactly zero. The "
            "attack cannot lower the score there: it is clamped or flat, which looks like robustness and is none.",
        ),
        Diagnostic(
            "silent success", lost, 0.0, lost > 0,
            "Share of images for which a point on the way was misclassified and not flagged, while the image that came back "
            "is not, judged anew.",
        ),
    )  # fmt: skip


def doubt_of_noise(row: AdaptiveRow, noise: AdaptiveRow) -> Diagnostic:
    """Whether random steps do as well as a search."""
    by_noise, by_attack = noise.success.value, row.success.value
    return Diagnostic(
        "noise as strong as the attack", by_noise, by_attack, 0 < by_noise < 1 and by_noise >= by_attack,
        "Success of random steps in the same ball, against the attack's. A search that is no better than chance is led "
        "nowhere by its gradients.",
    )  # fmt: skip


def doubt_of_black_box(rows: Sequence[AdaptiveRow]) -> Diagnostic:
    """Whether an attacker without gradients does better than all who have them."""
    white = max((one.success.value for one in rows if one.sees == WHITE_BOX), default=0.0)
    black = max((one.success.value for one in rows if one.sees == BLACK_BOX), default=0.0)
    return Diagnostic(
        "black box beats white box", black, min(1.0, white + SLACK), black > white + SLACK,
        "Success of the best black box, against that of the best white box and some slack. Gradients then mislead: the "
        "detector masks them, or the white boxes search badly.",
    )  # fmt: skip


def doubts_of_effort(
    attackers: Mapping[str, Attacker], rows: Sequence[AdaptiveRow], beaten: np.ndarray, rerun: Rerun
) -> tuple[Diagnostic, ...]:
    """Whether the headline would rise with twice the steps, or one more restart, of the strongest white box.

    The first ``DOUBTED`` images alone are looked at, and of them those that no attacker beat are attacked again.
    """
    strongest = strongest_white_box(rows)
    if strongest is None or strongest.attacker not in attackers:
        return ()
    places = np.flatnonzero(~beaten[:DOUBTED])
    asked = min(DOUBTED, len(beaten))
    attacker = attackers[strongest.attacker]
    found = []
    for name, harder in (
        ("more steps still help", attacker.harder(steps=2)),
        ("more restarts still help", attacker.harder(restarts=1)),
    ):
        gained = float(rerun(harder, places).sum()) / asked if len(places) else 0.0
        found.append(
            Diagnostic(
                name, gained, SLACK, gained > SLACK,
                f"Share of the first {asked} images that no attacker beat and that {strongest.attacker} beats with "
                f"{'twice the steps' if 'steps' in name else 'one more restart'}. The search had not ended.",
            )
        )  # fmt: skip
    return tuple(found)


def strongest_white_box(rows: Sequence[AdaptiveRow]) -> AdaptiveRow | None:
    """The row of the highest success among those who follow gradients; the first of equals."""
    return max(
        (one for one in rows if one.sees == WHITE_BOX), key=lambda one: one.success.count, default=None
    )


def with_doubts_of_noise(rows: Sequence[AdaptiveRow]) -> list[AdaptiveRow]:
    """The rows, each search beside chance where chance was tried."""
    noise = next((one for one in rows if one.sees == CHANCE), None)
    if noise is None:
        return list(rows)
    return [
        one
        if one.sees == CHANCE
        else replace(one, diagnostics=(*one.diagnostics, doubt_of_noise(one, noise)))
        for one in rows
    ]
