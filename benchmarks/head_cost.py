"""What measures of a large head cost, in units of the product that makes the logits.

    python benchmarks/head_cost.py [--batch 64] [--rounds 5] [--threads 1]

Two heads with random weights: 1000 classes × 2048 features, and a vocabulary of 32 000 words × 512 features. Features
are float32: three quarters of the rows lean towards a class, so that confidences go from flat to 1 in float32.
The unit is ``features @ W.T`` in float32. Each round makes a fresh Probe for
every run, so that nothing is shared but what the head keeps (distances or norms of its rows, made beforehand). Times
are CPU times; ratios are medians over rounds of (run / unit of the same round).

Takes no other libraries: ``curvature_cost.py`` compares with them.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from recording_cost import machine
from rich.console import Console
from rich.table import Table
from torch import Tensor

from uncannyvalley import Probe
from uncannyvalley.head import Head
from uncannyvalley.measures.second import (
    log_class_variance,
    log_relative_sharpness,
    log_top_eigenvalue,
    log_trace,
)
from uncannyvalley.measures.third import log_third_order
from uncannyvalley.softmax import TopClassSoftmax

HEADS = {"1000 classes × 2048": (1000, 2048), "32 000 words × 512": (32_000, 512)}
GAPS = (0.0, 10.0, 14.0, 40.0)
"""Nats by which the leaning of a row's features lifts its class; one row in four each."""


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


def random_head(classes: int, width: int) -> Head:
    draw = torch.Generator().manual_seed(0)
    return Head(torch.randn(classes, width, generator=draw) / width**0.5, None)


def leaning_features(head: Head, rows: int) -> Tensor:
    """Random features whose logits scatter by 2 nats, some of them along the row of a class."""
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(rows, head.weight.shape[1], generator=draw)
    lean = torch.tensor(GAPS).repeat(rows)[:rows, None]
    along = head.weight[torch.arange(rows) % head.classes]
    return features * (2 / head.logits(features).std()) + lean * along / along.square().sum(1, True)


def head_runs(head: Head, features: Tensor, logits: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed; the softmax of "alone" runs is made beforehand."""
    labels = torch.zeros(len(features), dtype=torch.long)
    owner = torch.arange(len(features))

    def fresh() -> Probe:
        return Probe(features, features, labels, None, owner, features, logits, head)

    warm = fresh()
    _ = warm.softmax
    runs: dict[str, Callable[[], object]] = {
        "logits: features @ W.T, float32": lambda: features @ head.weight.T,
        "the same product in float64": lambda: features.double() @ head.weight.double().T,
        "log_softmax, float32": lambda: logits.log_softmax(1),
        "TopClassSoftmax.of": lambda: TopClassSoftmax.of(logits),
        "log κ, fresh probe": lambda: log_relative_sharpness(fresh()),
        "  of it Var_p(w), softmax given": lambda: log_class_variance(warm),
        "  of it log |φ|": lambda: fresh().log_feature_norm,
        "log trace, fresh probe": lambda: log_trace(fresh()),
        "log τ (third order), fresh probe": lambda: log_third_order(fresh()),
        "log λ_max, fresh probe": lambda: log_top_eigenvalue(fresh()),
    }
    return runs | lighter_runs(warm, logits)


def lighter_runs(warm: Probe, logits: Tensor) -> dict[str, Callable[[], object]]:
    """Changes that are not made: what they would save."""
    runs: dict[str, Callable[[], object]] = {
        "if: softmax with float32 exp": lambda: softmax_single(logits),
    }
    head, softmax = warm.head, warm.softmax
    if head.is_pairwise:
        single = head.squared_distances.float()
        runs["if: pairs by a float32 product"] = lambda: pairs_single(softmax, single)
    else:
        norms = head.squared_norms
        runs["if: top-class form, float32 products"] = lambda: from_top_single(softmax, head, norms, logits)
    return runs


def softmax_single(logits: Tensor) -> tuple[Tensor, Tensor]:
    """q_s by float32 exponentials of exact differences, summed in float64."""
    highest, top = logits.max(dim=1)
    others = logits.scatter(1, top[:, None], -torch.inf)
    second = others.amax(dim=1)
    weights = (others - second[:, None]).exp_()
    log_top = -torch.log1p((second - highest).double().exp() * weights.sum(dim=1, dtype=torch.float64))
    return weights, log_top


def pairs_single(softmax: TopClassSoftmax, distances: Tensor) -> Tensor:
    """log Var_p(w) with the quadratic form's product in float32: all terms are positive, nothing cancels."""
    weights = softmax.weights.float()
    to_top = torch.linalg.vecdot(weights, distances[softmax.top]).double()
    among = torch.linalg.vecdot(weights @ distances, weights).double() / 2
    return softmax.log_scale + (softmax.log_top.exp() * to_top + softmax.scale * among).log()


def from_top_single(softmax: TopClassSoftmax, head: Head, norms: Tensor, logits: Tensor) -> Tensor:
    """log Var_p(w) from |v_s|² and Σ q v by float32 products with W, without a float64 copy of W."""
    top_rows = head.weight[softmax.top]
    products = top_rows @ head.weight.T
    to_top = norms + norms[softmax.top, None] - 2 * products.double()
    mean = (softmax.weights.float() @ head.weight).double() - softmax.weight_sum[:, None] * top_rows.double()
    spread = (softmax.weights * to_top.clamp(min=0)).sum(dim=1)
    return softmax.log_scale + (spread - softmax.scale * mean.square().sum(dim=1)).log()


def differences(runs: Mapping[str, Callable[[], object]], exact: Tensor) -> dict[str, str]:
    """How far the lighter forms are from the present log Var_p(w), in log."""
    return {
        name: f"{(work() - exact).abs().max().item():.0e}"
        for name, work in runs.items()
        if name.startswith("if: ") and isinstance(work(), Tensor)
    }


def main() -> None:
    options = arguments(__doc__, batch=64, rounds=5)
    for name, (classes, width) in HEADS.items():
        head = random_head(classes, width)
        features = leaning_features(head, options.batch)
        logits = head.logits(features)
        _ = head.squared_distances if head.is_pairwise else head.squared_norms
        sure = logits.softmax(1).amax(1)
        runs = head_runs(head, features, logits)
        exact = runs["  of it Var_p(w), softmax given"]()
        medians = ratio_medians(runs, next(iter(runs)), options.rounds)
        off = differences(runs, exact)
        rows = [[run, f"{ratio:#.3g}", off.get(run, "")] for run, ratio in medians.items()]
        confidence = ", ".join(f"{q:.3f}" for q in sure.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist())
        title = f"head of {name}, {options.batch} rows; confidence at 10, 50, 90 %: {confidence}"
        print_table(title, ("run", "CPU / logits", "|Δ log Var|, worst"), rows)
    console().print(machine(), highlight=False)


if __name__ == "__main__":
    main()
