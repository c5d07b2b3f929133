"""Certified accuracy over the radius, and loss changes under their bounds: certified solid, estimated dashed."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from uncannyvalley.report.drawings.figures import ATTACK_COLOUR, INK, STYLE

CERTIFIED, ESTIMATED, FOUND = "#0072B2", "#7A7A7A", ATTACK_COLOUR


class Radii(NamedTuple):
    """Radii of the images that are classified correctly; status "certified", "estimated" or "found"."""

    title: str
    status: str
    values: np.ndarray


def draw_radii(title: str, shown: Sequence[Radii], images: int) -> Figure:
    """Share of images that keep their label within a radius: proved, guessed, or not yet broken by an attack."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        styles = {"certified": (CERTIFIED, "-"), "estimated": (ESTIMATED, "--"), "found": (FOUND, "-.")}
        seen = set()
        for one in shown:
            colour, line = styles[one.status]
            radii = np.sort(one.values[one.values > 0])
            if len(radii) == 0:
                continue
            share = np.arange(len(radii), 0, -1) / images
            width = 2.2 if one.status not in seen else 1.1
            seen.add(one.status)
            finite = np.isfinite(radii)
            axes.step(
                radii[finite],
                share[finite],
                line,
                where="pre",
                color=colour,
                linewidth=width,
                label=one.title,
            )
        axes.set_xscale("log")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("radius, L2 pixels")
        axes.set_ylabel("share of all images")
        axes.set_title("Images whose label holds within the radius")
        figure.legend(frameon=False, fontsize=9, loc="outside lower left")
    return figure


def draw_loss_bounds(
    title: str, steps: np.ndarray, change: np.ndarray, certified: np.ndarray, estimated: np.ndarray
) -> Figure:
    """Median loss change of each step under the medians of its bounds, on a log axis."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        axes.plot(steps, certified, "-", color=CERTIFIED, linewidth=2.2, label="bound, certified L")
        axes.plot(
            steps,
            estimated,
            "--",
            color=ESTIMATED,
            linewidth=1.8,
            label="same formula, sampled L (no promise)",
        )
        axes.plot(
            steps, np.where(change > 0, change, np.nan), "-", color=FOUND, linewidth=2.2, label="what came"
        )
        axes.set_yscale("log")
        axes.set_xlabel("step of the walk")
        axes.set_ylabel("loss change (nats)")
        axes.set_title("Medians over examples", color=INK)
        axes.legend(frameon=False, fontsize=9, loc="best")
    return figure
