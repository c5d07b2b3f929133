"""ROC curves, false positives on a log axis: attack by attack for one detector, and detectors side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from detection.bench import FPR, Bench, Scores
from uncannyvalley.detect.evaluation.outcome import FEWEST_COUNTED
from uncannyvalley.detect.evaluation.roc import log_roc
from uncannyvalley.report.drawings.figures import INK, STYLE

HARDEST = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, for the attacks that are caught least; the others are grey."""

OTHERS = {"gini": ("#999999", "--", "log Gini"), "all_summed": (INK, "--", "all baselines, summed")}
"""Detectors beside the budgets: colour, line, title."""


def draw(
    title: str, budgets: Sequence[Scores], others: Mapping[str, Scores], bench: Bench, path: Path
) -> None:
    """Left: the last budget, attack by attack. Right: means over attacks of every budget and of ``others``."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.6, 5.3), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        left, right = figure.subplots(1, 2, sharey=True)
        _attacks(left, budgets[-1], bench)
        _detectors(right, budgets, others, bench)
        for axes in (left, right):
            _dress(axes, bench)
        left.set_ylabel("share of successful attacks flagged")
        figure.savefig(path, dpi=140, metadata={"Software": None})


def _attacks(axes: Axes, scores: Scores, bench: Bench) -> None:
    curves = _curves(scores, bench)
    caught = {
        name: float((scores.attacks[name][bench.counted(name)] > scores.promised).mean()) for name in curves
    }
    for place, name in enumerate(sorted(curves, key=lambda one: caught[one])):
        false_rates, true_rates = curves[name]
        if place < len(HARDEST):
            axes.plot(
                false_rates, true_rates, color=HARDEST[place], linewidth=1.8, zorder=10 - place,
                label=f"{name}  {caught[name]:.0%}", drawstyle="steps-post",
            )  # fmt: skip
        else:
            axes.plot(
                false_rates, true_rates, color="#C4C4C4", linewidth=0.8, zorder=1, drawstyle="steps-post"
            )
    axes.plot([], [], color="#C4C4C4", label=f"{max(0, len(curves) - len(HARDEST))} others")
    axes.set_title(f"{scores.name}, attack by attack")
    _legend(axes, "least caught, at the promised 5 %")


def _detectors(axes: Axes, budgets: Sequence[Scores], others: Mapping[str, Scores], bench: Bench) -> None:
    shades = matplotlib.colormaps["viridis"](np.linspace(0.92, 0.05, len(budgets)))
    for shade, scores in zip(shades, budgets, strict=True):
        axes.plot(
            *_mean(scores, bench), color=shade, linewidth=1.8, label=scores.name, drawstyle="steps-post"
        )
    for name, scores in others.items():
        colour, line, words = OTHERS[name]
        axes.plot(
            *_mean(scores, bench), line, color=colour, linewidth=1.6, label=words, drawstyle="steps-post"
        )
    axes.set_title("Mean over attacks")
    _legend(axes, "budgets, and what they are held against")


def _legend(axes: Axes, title: str) -> None:
    """Below the panel, where no curve runs."""
    axes.legend(
        frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(-0.02, -0.13), ncols=4, title=title,
        title_fontsize=8.5, alignment="left", handlelength=1.6, columnspacing=1.2,
    )  # fmt: skip


def _dress(axes: Axes, bench: Bench) -> None:
    smallest = 1 / int(bench.right.sum())
    axes.axvline(FPR, color=INK, linewidth=0.9, linestyle=":")
    axes.set(xscale="log", xlim=(smallest, 1), ylim=(0, 1.01))
    axes.set_xlabel("false-positive rate, test images classified right")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(which="major", color="#E4E4E4", linewidth=0.6)


def _curves(scores: Scores, bench: Bench) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Attack → its curve, for attacks with enough successful images."""
    counted = {name: bench.counted(name) for name in bench.attacks}
    clean = scores.clean[bench.right]
    return {
        name: log_roc(clean, scores.attacks[name][rows])
        for name, rows in counted.items()
        if rows.sum() >= FEWEST_COUNTED
    }


def _mean(scores: Scores, bench: Bench) -> tuple[np.ndarray, np.ndarray]:
    curves = list(_curves(scores, bench).values())
    return curves[0][0], np.mean([true_rates for _, true_rates in curves], axis=0)
