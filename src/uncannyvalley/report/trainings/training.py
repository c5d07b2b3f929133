"""A training as a figure and a page: losses and accuracies over its epochs, the selected one marked."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from uncannyvalley.report.detectors.section import ResultTable
from uncannyvalley.report.drawings.comparison import COLOURS
from uncannyvalley.report.drawings.figures import ATTACK_COLOUR, CONTROL_COLOURS, INK, STYLE, to_png, to_svg
from uncannyvalley.report.pages.html import from_template
from uncannyvalley.storing.files import write_bytes
from uncannyvalley.storing.places import Place
from uncannyvalley.train.history import Row, selected_row

FIGURE_FILE, PAGE_FILE = "training.png", "report.html"

OTHER_COLUMNS = (
    "epoch", "step", "learning_rate", "total", "clean_accuracy", "robust_accuracy", "selected",
)  # fmt: skip
"""Columns of a history that are no part of the loss."""

WORDS = {
    "loss": "loss", "sharpness": "κ at the head", "log_sharpness": "log κ at the head (nats)",
    "cross_entropy": "cross-entropy, clean (nats)", "divergence": "KL clean ‖ attacked (nats)",
}  # fmt: skip
"""Parts of losses → what the figure calls them."""

ACCURACIES = {
    "clean_accuracy": ("clean", CONTROL_COLOURS["assist"], "-"),
    "robust_accuracy": ("under the attack", ATTACK_COLOUR, "--"),
}

MOST_EPOCHS = 40
"""Up to so many epochs have rows of their own on the page."""

DECADES = 30.0
"""Largest over smallest value from which on a part of the loss is drawn in logs."""

MARKED = 30
"""Up to so many epochs are marked by dots."""


@dataclass(frozen=True)
class TrainingPage:
    """What the page shows. Every text is escaped; only the figure is markup, drawn by this package."""

    title: str
    lead: str
    figure_svg: str
    caption: str
    tables: Sequence[ResultTable]
    provenance: Mapping[str, str]
    command: str


def parts_of(history: Sequence[Row]) -> list[str]:
    """The parts of the loss that a history has, in its order."""
    return [
        name for name in dict.fromkeys(key for row in history for key in row) if name not in OTHER_COLUMNS
    ]


def draw_training(title: str, history: Sequence[Row], attack: str) -> Figure:
    """Parts of the loss, each on an axis of its own, above the accuracies at validation, over one axis of epochs.

    attack  what the network was attacked by at validation; "" for nothing
    """
    parts = parts_of(history)
    looked = any(row["clean_accuracy"] is not None for row in history)
    heights = [1.5] * len(parts) + ([2.4] if looked else [])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 1.2 + 1.05 * sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        for number, (axes, name) in enumerate(zip(panels, parts, strict=False)):
            _draw_line(axes, history, name, COLOURS[(number + 2) % len(COLOURS)], "-")
            if _spans_decades([row[name] for row in history if row.get(name) is not None]):
                axes.set_yscale("log")
            axes.set_title(f"{WORDS.get(name, name.replace('_', ' '))}: mean over the steps of an epoch")
        if looked:
            _draw_accuracies(panels[-1], history, attack)
        best = selected_row(history)["epoch"]
        for axes in panels:
            axes.axvline(best, color=INK, linewidth=0.9, linestyle=":", zorder=1)
        panels[-1].set_xlabel(f"epoch (dotted: {best}, whose network is kept)")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _spans_decades(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > DECADES * min(values)


def _draw_line(
    axes: Axes, history: Sequence[Row], name: str, colour: str, style: str, label: str = ""
) -> None:
    points = [(row["epoch"], row[name]) for row in history if row.get(name) is not None]
    marker = "o" if len(points) <= MARKED else ""
    epochs, values = zip(*points, strict=True)
    axes.plot(epochs, values, style, color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=label)


def _draw_accuracies(axes: Axes, history: Sequence[Row], attack: str) -> None:
    for name, (label, colour, style) in ACCURACIES.items():
        if any(row.get(name) is not None for row in history):
            _draw_line(axes, history, name, colour, style, label)
    axes.set_title(f"Accuracy at validation{f'; attack: {attack}' if attack else ''}")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.set_ylim(-0.03, 1.03)
    axes.legend(frameon=False, loc="best")


def training_page(
    title: str,
    history: Sequence[Row],
    *,
    attack: str,
    results: Sequence[ResultTable],
    provenance: Mapping[str, str],
    command: str,
) -> TrainingPage:
    """What a page shows of a training: its figure, then the tables of ``results`` and that of the epochs."""
    best = selected_row(history)
    return TrainingPage(
        title=title,
        lead=_lead(best, len(history), attack),
        figure_svg=to_svg(draw_training(title, history, attack)),
        caption="The dotted line marks the epoch whose network is kept. Losses are means over the steps of an epoch, "
        "while the weights move; accuracies are those of the weights at its end.",
        tables=[*results, epochs_table(history)],
        provenance=provenance,
        command=command,
    )


def write_training(
    place: Place,
    title: str,
    history: Sequence[Row],
    *,
    attack: str,
    results: ResultTable,
    provenance: Mapping[str, str],
    command: Sequence[str],
) -> dict[str, Place]:
    """Figure and page of a training, into its folder; what → file."""
    page = training_page(
        title, history, attack=attack, results=[results], provenance=provenance, command=shlex.join(command)
    )
    files = {"figure": place / FIGURE_FILE, "report": place / PAGE_FILE}
    write_bytes(files["figure"], to_png(draw_training(title, history, attack)))
    write_bytes(files["report"], from_template("training.html.j2", page).encode())
    return files


def _lead(best: Row, epochs: int, attack: str) -> str:
    clean, robust = best["clean_accuracy"], best["robust_accuracy"]
    kept = f"Of {epochs} epoch{'s' if epochs > 1 else ''} the network of epoch {best['epoch']} is kept"
    if clean is None:
        return f"{kept}."
    under = f", {100 * robust:.1f} % under the attack ({attack})" if robust is not None else ""
    return f"{kept}: {100 * clean:.1f} % of the validation images are right{under}."


def epochs_table(history: Sequence[Row]) -> ResultTable:
    """The epochs row by row, thinned out where they are many; the selected one is always there."""
    every = -(-len(history) // MOST_EPOCHS)
    best = selected_row(history)
    rows = [row for row in history if row["epoch"] % every == 0 or row is best or row is history[-1]]
    names = [
        name for name in ("epoch", "learning_rate", *parts_of(history), *ACCURACIES) if name in history[0]
    ]
    cells = [[_cell(name, row.get(name)) for name in names] + ["kept" if row is best else ""] for row in rows]
    return ResultTable("Epochs", [*(name.replace("_", " ") for name in names), ""], cells)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name in ACCURACIES:
        return f"{100 * value:.1f} %"
    return str(value) if name == "epoch" else f"{value:.4g}"
