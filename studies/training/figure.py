"""log κ against the distance walked, one panel a data set, one line an objective."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.tables import Groups
from uncannyvalley.report.drawings.figures import INK, STYLE

COLOURS = {
    "standard": ("#D55E00", "#E69F00", "#CC79A7", "#8C510A", "#7A7A7A", "#B2182B"),
    "robust": ("#0072B2", "#56B4E9", "#009E73", "#332288", "#44AA99", "#999933"),
}
"""Warm for standard training, cool and dashed for adversarial."""


def draw(shown: Mapping[str, Groups], path: Path) -> None:
    """Medians over images and seeds; an objective has one colour in all panels."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(shown), 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        colours: dict[str, str] = {}
        for axes, (dataset, groups) in zip(
            np.atleast_1d(figure.subplots(1, len(shown))), shown.items(), strict=True
        ):
            _give_colours(groups, colours)
            _panel(axes, dataset, groups, colours)
        figure.axes[0].set_ylabel("log κ − log κ of the clean image, nats (median)")
        figure.savefig(path, dpi=140, metadata={"Software": None})


def _give_colours(groups: Groups, colours: dict[str, str]) -> None:
    """To each name that has none yet the first colour of its kind that no other line of this panel has."""
    for name, networks in groups.items():
        taken = {colours[one] for one in groups if one in colours}
        free = [one for one in COLOURS[networks[0].kind] if one not in taken]
        colours.setdefault(name, (free or COLOURS[networks[0].kind])[0])


def _panel(axes: Axes, dataset: str, groups: Groups, colours: Mapping[str, str]) -> None:
    for name, networks in groups.items():
        line = np.median(np.concatenate([one.walked.relative for one in networks]), axis=0)
        axes.plot(
            networks[0].walked.distances,
            line,
            "-" if networks[0].kind == "standard" else "--",
            color=colours[name],
            linewidth=1.7,
            label=name,
        )
    axes.axhline(0, color=INK, linewidth=0.8, alpha=0.5)
    axes.set_title(dataset)
    axes.set_xlabel("Linf distance walked")
    axes.legend(
        frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(-0.05, -0.13), ncols=2, handlelength=2.2, columnspacing=1.0
    )  # fmt: skip
