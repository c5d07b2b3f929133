"""log κ along the walks of suffixes, and of images at their own scale."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import uncannyvalley as uv
from uncannyvalley.report.drawings.figures import ATTACK_COLOUR, INK, STYLE

COLOURS = {
    "gcg": ATTACK_COLOUR, "pgd": ATTACK_COLOUR, "soft-prompt": "#0072B2", "random-tokens": "#7A7A7A", "noise": "#7A7A7A",
}  # fmt: skip
STYLES = {"random-tokens": "--", "noise": "--"}

BAND = (25, 75)

ROW = 0.035
"""Height of a row of flip marks, as a share of the panel."""


def draw(suffixes: Mapping[str, uv.Trajectory], pictures: Mapping[str, uv.Trajectory], path: Path) -> None:
    """Two panels; the grey strip of the right one is the left one's height."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        _walks(left, suffixes)
        left.set_title("stories260k: suffixes")
        left.set_xlabel("step (0 is the starting suffix)")
        left.set_ylabel("log κ − start, nats")
        left.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, ROW * (len(suffixes) + 1)))
        height = left.get_ylim()
        _walks(right, pictures)
        right.axhspan(*height, color=INK, alpha=0.08, linewidth=0, zorder=0, label="height of the left panel")
        right.set_title("ResNet-20: images, Linf 8/255")
        right.set_xlabel("step (0 is the clean image)")
        right.set_ylabel("log κ − clean, nats")
        right.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, ROW * (len(pictures) + 1)))
        figure.savefig(path, dpi=140, metadata={"Software": None})


def _walks(axes: Axes, walks: Mapping[str, uv.Trajectory]) -> None:
    """Medians with the middle half of the examples; flips are ticks below, a row for each walk."""
    for row, (name, walk) in enumerate(walks.items()):
        changes, flips = changes_and_flips(walk)
        low, middle, high = np.percentile(changes, (BAND[0], 50, BAND[1]), axis=0)
        steps, colour = np.arange(len(middle)), COLOURS[name]
        label = f"{name} ({np.isfinite(flips).mean():.0%} flipped)"
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps, middle, STYLES.get(name, "-"), color=colour, linewidth=1.9, label=label)
        at = flips[np.isfinite(flips)]
        height = np.full(len(at), ROW * (len(walks) - row))
        axes.plot(
            at, height, "|", color=colour, markersize=8, alpha=0.6, transform=axes.get_xaxis_transform()
        )
    axes.axhline(0, color=INK, linewidth=0.8, alpha=0.5)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - (top - bottom) * ROW * (len(walks) + 1.5), top)
    axes.annotate(
        "ticks: flips",
        (1, ROW * (len(walks) + 0.8)),
        xycoords="axes fraction",
        ha="right",
        fontsize=8.5,
        color="#555555",
    )


def changes_and_flips(walk: uv.Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """log κ − its first row (examples, steps), and the step of the flip or NaN, of examples that were not flipped before."""
    found = uv.phases(walk)
    kept = found.flip_step != 0
    sharpness = found.trajectory.column("log_relative_sharpness")[kept]
    return sharpness - sharpness[:, :1], found.flip_step[kept]
