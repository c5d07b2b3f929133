"""How the benchmarks of curvature take times and print tables: CPU time, interleaved, as ratios within a round."""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 170)


class Outcome(NamedTuple):
    """CPU seconds for the whole batch, and the trace of as many images as were measured."""

    seconds: float
    trace: Tensor | None = None


def timed(work: Callable[[], object], scale: float = 1) -> Outcome:
    started = time.process_time()
    found = work()
    return Outcome(scale * (time.process_time() - started), found if isinstance(found, Tensor) else None)


class Compared(NamedTuple):
    """CPU time over floor and forward, and the relative difference of each image's trace from ours."""

    over_floor: float
    over_forward: float
    off: Tensor | None


def cell(rounds: Sequence[Compared] | None) -> str:
    if not rounds:
        return "—"
    floors, forwards, (off, *_) = zip(*rounds, strict=True)
    text = " | ".join(f"{statistics.median(ratios):#.3g}" for ratios in (floors, forwards))
    if off is None or not off.any():
        return text
    return f"{text} ({off.median():.0e}" + (f", {off.max():.0e})" if len(off) > 1 else ")")


def is_able(name: str, run: Callable, case: object) -> bool:
    """Whether it can be imported; one run on few images also pays for what is done once."""
    try:
        run(case)
    except ImportError as error:
        console().print(f"{name} left out: {error}", highlight=False)
        return False
    return True


def arguments(text: str, *, batch: int, rounds: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder that holds other libraries")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peers:
        warnings.simplefilter("ignore")  # of their hooks
        sys.path.append(str(options.peers.resolve()))  # behind everything that is installed
    return options


def print_table(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1, caption: str = ""
) -> None:
    """A table whose first ``text`` columns are left-aligned."""
    table = Table(title=title, caption=caption or None)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < text else "right")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def ratio_medians(runs: Mapping[str, Callable[[], object]], unit: str, rounds: int) -> dict[str, float]:
    """Each run over the run ``unit`` of the same round, as medians over rounds; one round before is thrown away."""
    ratios: dict[str, list[float]] = {name: [] for name in runs}
    for lap in range(rounds + 1):
        seconds = {name: timed(work).seconds for name, work in runs.items()}
        for name, own in seconds.items() if lap else ():
            ratios[name].append(own / seconds[unit])
    return {name: statistics.median(own) for name, own in ratios.items()}
