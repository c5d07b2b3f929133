"""The claims of arXiv 2405.16918 and its open questions: measured, and judged by rules that were fixed before.

    OMP_NUM_THREADS=1 python studies/claims.py --shared ../shared --cache build/claims
    OMP_NUM_THREADS=1 python studies/claims.py --shared ../shared --cache build/claims --only 3

What is quick is measured here; what takes hours is read from the tables that the other studies and the benchmarks printed,
and says so. Walks and trained networks are kept in ``--cache``, so that an interrupted study goes on where it stopped.
Writes a figure a claim and ``claims.json``; what it printed, and what it means, is in studies/claims.md.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

import matplotlib
import torch
from claims.asked import CLAIMS, Claim
from claims.verdicts import Outcome
from claims.walks import World

from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.report.drawings.figures import STYLE
from uncannyvalley.storing.files import write_text


def chosen(keys: list[str] | None) -> list[Claim]:
    """The claims that are asked for, in their order; InputError for an unknown key."""
    known = {claim.key: claim for claim in CLAIMS}
    for key in keys or ():
        if key not in known:
            raise unknown_name("claim", key, known)
    return [claim for claim in CLAIMS if not keys or claim.key in keys]


def print_claim(claim: Claim, outcome: Outcome, seconds: float) -> None:
    """Every part with its rule, then what was measured beside."""
    print(f"\n=== {claim.key}: {claim.says}\n")
    for part in outcome.parts:
        print(f"  {part}")
    print()
    for line in outcome.lines:
        print(f"  {line}")
    print(f"\n  verdict: {outcome.verdict.upper()}   ({seconds:.0f} s)", flush=True)


def print_table(outcomes: dict[str, Outcome]) -> None:
    """Claim, measured, verdict."""
    print(f"\n{'claim':18}{'measured':114}verdict")
    for key, outcome in outcomes.items():
        print(f"{key:18}{outcome.short:114}{outcome.verdict}")


def plain(outcomes: dict[str, Outcome]) -> str:
    """Everything as JSON; what is no finite number is null."""

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    def listed(outcome: Outcome) -> dict[str, object]:
        parts = [
            {
                "text": part.text, "rule": part.rule, "verdict": part.verdict, "counts": part.counts,
                "source": part.source or "measured", "value": number(part.figure.value),
                "interval": [number(part.figure.low), number(part.figure.high)],
            }
            for part in outcome.parts
        ]  # fmt: skip
        return {"verdict": outcome.verdict, "measured": outcome.short, "parts": parts, **outcome.numbers}

    return (
        json.dumps({key: listed(one) for key, one in outcomes.items()}, indent=1, ensure_ascii=False) + "\n"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--cache", type=Path, default=Path("build/claims"))
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="for figures and claims.json")
    parser.add_argument("--images", type=int, default=128, help="of one walk")
    parser.add_argument("--only", nargs="*", metavar="CLAIM", help=", ".join(claim.key for claim in CLAIMS))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    world = World(given.shared, given.cache, given.images, quick=bool(os.environ.get("UNCANNY_QUICK")))
    outcomes = {}
    for claim in chosen(given.only):
        started = time.perf_counter()
        outcomes[claim.key] = outcome = claim.measure(world)
        with matplotlib.rc_context(STYLE):
            outcome.draw(given.out / f"claims_{claim.key.replace('-', '_')}.png")
        print_claim(claim, outcome, time.perf_counter() - started)
    print_table(outcomes)
    write_text(given.out / "claims.json", plain(outcomes))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
