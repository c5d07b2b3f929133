"""Strips of kept images as a figure: clean → ridge → flip → valley, and the perturbation amplified."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from uncannyvalley.report.drawings.figures import STYLE
from uncannyvalley.report.page_numbers.pictures import Steps, amplified
from uncannyvalley.report.suffixes.legible import legible
from uncannyvalley.run.album import ROLES

COLUMNS = (*ROLES, "perturbation")

LONGEST = 22
"""Letters of a class's name that are shown."""


@dataclass(frozen=True)
class StripImage:
    """One picture, (c, h, w) in [0, 1], and the words beneath it."""

    pixels: np.ndarray
    caption: str


@dataclass(frozen=True)
class ImageStrip:
    """One example: its heading, and its pictures by column; columns that it has not are left empty."""

    heading: str
    images: Mapping[str, StripImage]


def image_strip(
    example: int, label: int, kept: Steps, walk: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> ImageStrip:
    """The marked iterates of one example.

    walk  log_relative_sharpness and predicted of the example, a value a step
    """
    marked = {role: step for step, (roles, _) in sorted(kept.items()) for role in roles}
    images = {
        role: StripImage(kept[marked[role]][1], _caption(marked[role], walk, class_names))
        for role in ROLES
        if role in marked
    }
    if (moved := amplified(kept)) is not None:
        step, factor, pixels = moved
        images["perturbation"] = StripImage(pixels, f"step {step}\n× {factor:.3g}")
    return ImageStrip(f"example {example}\nis {_class(label, class_names)}", images)


def _caption(step: int, walk: Mapping[str, np.ndarray], class_names: Sequence[str]) -> str:
    sharpness, predicted = walk["log_relative_sharpness"][step], walk["predicted"][step]
    if np.isnan(sharpness):
        return f"step {step}"
    return f"step {step}\nlog κ {sharpness:z.1f}\nseen as {_class(int(predicted), class_names)}"


def _class(number: int, names: Sequence[str]) -> str:
    return legible(names[number], LONGEST) if 0 <= number < len(names) else f"class {number}"


def draw_image_strips(title: str, strips: Sequence[ImageStrip]) -> Figure:
    """A row an example, a column a mark of its walk."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 0.7 + 2.05 * len(strips)), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        grid = figure.subplots(len(strips), len(COLUMNS), squeeze=False)
        for row, strip in zip(grid, strips, strict=True):
            for axes, column in zip(row, COLUMNS, strict=True):
                _draw_image(axes, strip.images.get(column))
            row[0].set_ylabel(strip.heading, fontsize=9, rotation=0, ha="right", va="center", labelpad=6)
        for axes, column in zip(grid[0], COLUMNS, strict=True):
            axes.set_title(column, loc="center", fontsize=9)
    return figure


def _draw_image(axes: Axes, shown: StripImage | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if shown is None:
        axes.text(0.5, 0.5, "–", ha="center", va="center", transform=axes.transAxes, color="#888888")
        return
    pixels = np.nan_to_num(np.clip(shown.pixels, 0, 1), nan=0.5)
    grey = len(pixels) < 3
    axes.imshow(
        pixels[0] if grey else pixels[:3].transpose(1, 2, 0), cmap="gray" if grey else None, vmin=0, vmax=1, interpolation="nearest",
    )  # fmt: skip
    axes.set_xlabel(shown.caption, fontsize=8)
