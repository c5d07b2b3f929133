"""Open question: are there cheap approximations for models too large to be measured exactly?

An approximation serves if nine of ten errors are within a tenth (10 %, or 0.1 nats of log κ) at no more than a quarter of
the exact way's cost. What benchmarks/approximations.py printed is judged by that; beside it, κ of the most probable words
alone is measured here, on natural text of the language model at hand.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from claims import pictures
from claims.printed import CURVATURE, text_of
from claims.suffix import PROMPTS
from claims.verdicts import Criterion, Outcome, Part, point
from claims.walks import COLOURS, World
from uncannyvalley.errors import InputError
from uncannyvalley.types import Probe

SERVES = Criterion("error that nine of ten keep", "below", 0.1, ".3f")
CHEAP = 0.25
TITLES = {
    "a": "class probes, 1000 classes",
    "b": "some tokens, mean log κ",
    "c": "low-rank head",
    "d": "probes at a curved layer",
}
TOP = (8, 32, 128)


@dataclass(frozen=True)
class Row:
    """One line of the benchmark's table: errors are nats of log κ, or shares of κ."""

    kind: str
    name: str
    size: str
    median: float
    most: float
    cost: float


def rows(text: str) -> list[Row]:
    """Every line of the table of approximations."""
    found = []
    for line in text.splitlines():
        cells = [one.strip() for one in line.strip("│ ").split("│")]
        if len(cells) == 8 and re.match(r"[abcd]  ", cells[0]):
            median, most = (_error(cells[at]) for at in (2, 3))
            found.append(Row(cells[0][0], cells[0][3:], cells[1], median, most, float(cells[7])))
    if not found:
        raise InputError(
            f"{CURVATURE} has no table of approximations; print it with benchmarks/approximations.py"
        )
    return found


def _error(cell: str) -> float:
    return float(cell.removesuffix("%")) / 100 if cell.endswith("%") else float(cell.removesuffix(" nats"))


def best_cheap(found: list[Row], kind: str) -> Row | None:
    """Of one kind, the row of the least error among those that are cheap; None where none is."""
    cheap = [row for row in found if row.kind == kind and row.cost <= CHEAP]
    return min(cheap, key=lambda row: row.most) if cheap else None


def judged(found: list[Row], kind: str) -> Part:
    """The best cheap row of a kind; where none is cheap enough, it fails with an infinite error."""
    best = best_cheap(found, kind)
    title = TITLES[kind] if best is None else f"{TITLES[kind]} ({best.size}, cost {best.cost:g})"
    return SERVES.judge(point(np.inf if best is None else best.most), of=title, source=CURVATURE)


def top_words(probe: Probe, count: int) -> torch.Tensor:
    """log κ from the ``count`` most probable words alone, each with its true probability: (n,).

    κ = |φ|² (Σ p_s |v_s|² − |Σ p_s v_s|²), v_s = w_s − w_t, with the sums over the words that are kept.
    """
    log_p = probe.logits.double().log_softmax(dim=1)
    kept, words = log_p.topk(count, dim=1)
    weight = probe.head.weight.double()[words]
    away = weight - weight[:, :1]
    p = kept.exp()[:, :, None]
    variance = (p * away.square()).sum(dim=(1, 2)) - (p * away).sum(dim=1).square().sum(dim=1)
    return 2 * probe.features.double().norm(dim=1).log() + variance.log()


def words_errors(world: World) -> dict[int, np.ndarray]:
    """|log κ of the top words − exact| at every token of the study's goals, for each number of words."""
    from uncannyvalley import llm, measures

    model = llm.load_language_model(str(world.shared / "models" / "stories260k"), device="cpu")
    goals = [one.goal for one in llm.read_prompts(str(PROMPTS)).items][: world.few(40, 4)]
    found: dict[int, list[np.ndarray]] = {count: [] for count in TOP}
    exact_of = measures.available()["log_relative_sharpness"]
    for goal in goals:
        probe = model.probe(model.tokenizer(goal)["input_ids"])
        exact = exact_of(probe)
        for count, errors in found.items():
            errors.append((top_words(probe, count) - exact).abs().numpy())
    return {count: np.concatenate(errors) for count, errors in found.items()}


def measure(world: World) -> Outcome:
    """Four kinds in print, one measured."""
    found = rows(text_of(CURVATURE))
    parts = [judged(found, kind) for kind in TITLES]
    errors = words_errors(world)
    words = 512
    for count, one in errors.items():
        if count / words <= CHEAP:
            of = f"{count} of {words} words, stories260k, {len(one)} tokens"
            parts.append(SERVES.judge(point(np.quantile(one, 0.9)), of=of))
    lines = [f"{'words':>6}{'median, nats':>14}{'90 %':>8}{'worst':>8}"]
    lines += [
        f"{count:>6}{np.median(one):>14.3f}{np.quantile(one, 0.9):>8.3f}{one.max():>8.3f}"
        for count, one in errors.items()
    ]

    def draw(path: Path) -> None:
        figure, (axes,) = pictures.sheet(7.4, 3.4, 1)
        for (kind, title), mark, colour in zip(TITLES.items(), "osv^", COLOURS[1:5], strict=True):
            own = [row for row in found if row.kind == kind]
            axes.plot(
                [row.cost for row in own],
                [row.most for row in own],
                mark,
                color=colour,
                label=title,
                markersize=5,
            )
        shares = [count / words for count in errors]
        axes.plot(
            shares,
            [np.quantile(one, 0.9) for one in errors.values()],
            "*",
            color=COLOURS[0],
            markersize=9,
            label="top words (share of words)",
        )
        axes.fill_between(
            [0.01, CHEAP], 1e-4, SERVES.limit, color="#009E73", alpha=0.12, linewidth=0, label="would serve"
        )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="cost / exact",
            ylabel="error that nine of ten keep",
            xlim=(0.012, 1.6),
        )
        axes.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5))
        axes.set_title("Error against cost")
        pictures.save(figure, path)

    good = [part.text.split(":")[0].split(" (")[0].split(",")[0] for part in parts if part.verdict == "holds"]
    return Outcome(parts, f"serve: {', '.join(good) or 'none'} (of {len(parts)} tried)", lines, draw)
