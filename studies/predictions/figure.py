"""The four predictions in four panels."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from predictions import curve, margins
from predictions.band import band
from predictions.floor import floors
from predictions.subjects import Subject
from uncannyvalley.report.drawings.figures import INK, STYLE

STANDARD, ROBUST, THIRD, GREY = "#D55E00", "#0072B2", "#009E73", "#7A7A7A"
SHOWN = 1500
"""Points of a network in the scatter, drawn at random."""


def draw(
    subjects: Sequence[Subject],
    plain: Sequence[Subject],
    squared: Sequence[Subject],
    cosine: Sequence[Subject],
    path: Path,
) -> None:
    """Panels that have nothing to show stay empty and say so."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.8, 9.2), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, 2)
        _curve(panels[0, 0], subjects)
        _squared(panels[0, 1], plain, squared)
        _floor(panels[1, 0], cosine)
        _margins(panels[1, 1], subjects)
        figure.savefig(path, dpi=140, metadata={"Software": None})


def _curve(axes: Axes, subjects: Sequence[Subject]) -> None:
    width, rng = 0.0, np.random.default_rng(0)
    for kind, colour in (("standard", STANDARD), ("robust", ROBUST)):
        for one in subjects:
            if one.kind != kind:
                continue
            found = curve.points(one, curve.THRESHOLDS[0])
            picks = rng.permutation(len(found.came))[:SHOWN]
            axes.plot(
                found.predicted[picks],
                found.came[picks],
                ".",
                color=colour,
                markersize=1.6,
                alpha=0.35,
                rasterized=True,
            )
            width = max(width, band(one.weight, curve.THRESHOLDS[0]).width)
        axes.plot([], [], "o", color=colour, markersize=4, label=f"{kind} networks")
    low, high = axes.get_xlim()
    line = np.array([low, high])
    axes.plot(line, line, color=INK, linewidth=0.9, label="prediction")
    axes.fill_between(
        line,
        line - width,
        line + width,
        color=GREY,
        alpha=0.15,
        linewidth=0,
        label="widest band of a head's weights",
    )
    axes.set_xlabel("−Δ logit gap + 2 Δ log|φ|, nats")
    axes.set_ylabel("Δ log κ, nats")
    axes.set_title("(i) Change of log κ between confident points")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")


def _squared(axes: Axes, plain: Sequence[Subject], squared: Sequence[Subject]) -> None:
    if not plain or not squared:
        axes.set_title("(ii) not trained yet")
        return
    for name, networks, colour in (("cross-entropy", plain, STANDARD), ("squared loss", squared, ROBUST)):
        falls = np.concatenate(
            [
                (one.walks[-1].log_kappa - one.walks[-1].log_kappa[:, :1])[one.walks[-1].right_at_first]
                for one in networks
            ]
        )
        _median(axes, falls, colour, "-", f"{name}, softmax-κ")
    norms = np.concatenate(
        [
            2 * (one.walks[-1].log_norm - one.walks[-1].log_norm[:, :1])[one.walks[-1].right_at_first]
            for one in squared
        ]
    )
    _median(axes, norms, THIRD, "--", "squared loss, κ of its own loss")
    axes.axhline(0, color=INK, linewidth=0.8, alpha=0.5)
    axes.set_xlabel(f"step of PGD, Linf {plain[0].walks[-1].eps:g}")
    axes.set_ylabel("log κ − clean, nats")
    axes.set_title("(ii) Digits: squared loss against cross-entropy")
    axes.legend(frameon=False, fontsize=8.5, loc="lower left")


def _median(axes: Axes, values: np.ndarray, colour: str, style: str, label: str) -> None:
    low, middle, high = np.percentile(values, (25, 50, 75), axis=0)
    steps = np.arange(len(middle))
    axes.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(steps, middle, style, color=colour, linewidth=1.8, label=label)


def _floor(axes: Axes, cosine: Sequence[Subject]) -> None:
    if not cosine:
        axes.set_title("(iii) not trained yet")
        return
    place = 0
    for one in cosine:
        found = floors(one)
        reached = np.isfinite(found.lowest)
        at = place + np.arange(len(found.certified))
        colour = STANDARD if one.kind == "standard" else ROBUST
        axes.plot(
            at,
            found.certified,
            "_",
            color=INK,
            markersize=5,
            label="floor, before any attack" if place == 0 else None,
        )
        axes.plot(at[reached], found.lowest[reached], "v", color=colour, markersize=3.5)
        place += len(found.certified) + 2
    for kind, colour in (("standard", STANDARD), ("robust", ROBUST)):
        axes.plot([], [], "v", color=colour, markersize=4, label=f"lowest of all walks, {kind}")
    axes.set_xticks([])
    axes.set_xlabel("predicted classes, network by network")
    axes.set_ylabel("log κ, nats")
    axes.margins(y=0.25)
    axes.set_title("(iii) Cosine heads: floor and lowest log κ, class by class")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", ncols=1)


def _margins(axes: Axes, subjects: Sequence[Subject]) -> None:
    standard, robust = (
        [one for one in subjects if one.group == "cifar10" and one.kind == kind]
        for kind in ("standard", "robust")
    )
    for question, style, words in (
        ("fall from clean, same gap", "--", "same gap"),
        ("fall from clean, same growth of the gap", "-", "same growth of the gap"),
    ):
        bins = np.array([one[:4] for one in margins.ask(question, standard, robust).bins])
        middle = bins[:, :2].mean(axis=1)
        for place, colour, kind in ((2, STANDARD, "standard"), (3, ROBUST, "robust")):
            axes.plot(
                middle,
                bins[:, place],
                style,
                color=colour,
                linewidth=1.7,
                marker="o",
                markersize=3,
                label=f"{kind}, {words}",
            )
    axes.axhline(0, color=INK, linewidth=0.8, alpha=0.5)
    axes.set_xlabel("logit gap after the flip, or its growth since the clean image, nats")
    axes.set_ylabel("fall of log κ since the clean image, nats")
    axes.set_title("(iv) CIFAR-10: what robust training moves")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
