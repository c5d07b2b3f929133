"""Several runs side by side: what they are called, what decided them, and their figure.

The figure has log κ along each walk, and what its climb and descent are made of.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from uncannyvalley.analysis.comparison import Comparison, Drawn
from uncannyvalley.analysis.curves import BAND
from uncannyvalley.analysis.phase_table import SHARES
from uncannyvalley.analysis.summary import Figure as Interval
from uncannyvalley.report.figures import INK, SHARE_TITLES, STYLE
from uncannyvalley.run.plan import Plan

# Okabe and Ito's colours without yellow, which thin lines on white lose. With four line styles, twelve runs differ.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")

FEW = 4
"""Up to so many runs have bands that can be told apart, and so many measures are named one by one."""

NUMBERED = 6
"""Up to so many runs have bars with room for their numbers."""

LEGEND_ROOM, LEGEND_KEY = 118, 12
"""Letters that fit in a row of the legend, and those that a line with its gaps takes."""

GROUPS = tuple((change, share) for change in ("climb", "descent") for share in SHARES)
GAP = 0.5
"""Room between the bars of the climb and those of the descent, in groups."""

LENGTHS = ("eps", "step_size")
"""Settings in units of the input's range, which people write in 255ths."""

FRACTION = "fraction of each image's walk (0 is the clean image, 1 its last recorded row)"
CUT = "; drawn while at least half of the images are still walked"


def draw_comparison(title: str, shown: Comparison) -> Figure:
    """Two panels with one colour a run, and the legend below them."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 7.4 + 0.12 * len(shown.drawn)), layout="constrained")
        FigureCanvasAgg(figure)
        sharpness, shares = figure.subplots(2, 1, height_ratios=[3, 2])
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        _draw_sharpness(sharpness, shown)
        _draw_shares(shares, shown.drawn)
        figure.get_layout_engine().set(h_pad=0.07, hspace=0.05)  # type: ignore[union-attr, call-arg]
        handles, names = _legend(shown)
        room = [len(name) + LEGEND_KEY for name in names]
        columns = len(names) if sum(room) <= LEGEND_ROOM else max(1, LEGEND_ROOM // max(room))
        figure.legend(
            handles,
            names,
            loc="outside lower left",
            ncols=columns,
            frameon=False,
            fontsize=9,
            handlelength=3.6,
        )
    return figure


def _draw_sharpness(axes: Axes, shown: Comparison) -> None:
    alpha, size = (0.13, 8) if len(shown.drawn) <= FEW else (0.05, 6)
    for number, run in enumerate(shown.drawn.values()):
        colour, line = _look(number)
        if run.curve is None:
            continue
        curve = run.curve
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=alpha, linewidth=0)
        axes.plot(curve.steps, curve.median, line, color=colour, linewidth=2)
        if run.flip is not None:
            face = colour if run.flips_most else "white"
            axes.plot(
                *run.flip,
                "o",
                color=colour,
                markerfacecolor=face,
                markersize=size,
                markeredgewidth=1.8,
                zorder=5,
            )
    cut = any(run.cut for run in shown.drawn.values())
    axes.margins(x=0.02)
    if shown.axis == "step":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"Relative sharpness at the head, median and {BAND[0]}–{BAND[1]} % of images")
    axes.set_ylabel("log κ (nats)")
    axes.set_xlabel((_step_title(shown) if shown.axis == "step" else FRACTION) + (CUT if cut else ""))


def _step_title(shown: Comparison) -> str:
    """Rows are steps of our walks, and queries of watched attacks."""
    queries = [run.queries for run in shown.drawn.values()]
    if all(queries):
        return "query (0 is an image's first)"
    return f"step of the walk{', or query' if any(queries) else ''} (0 is the clean image)"


def _draw_shares(axes: Axes, drawn: Mapping[str, Drawn]) -> None:
    width = 0.8 / len(drawn)
    middles = np.arange(len(GROUPS)) + GAP * (np.arange(len(GROUPS)) >= len(SHARES))
    for number, run in enumerate(drawn.values()):
        if not run.shares:
            continue
        figures = [run.shares[f"{change}_{share}"] for change, share in GROUPS]
        heights = np.array([one.value for one in figures])
        spans = np.abs(np.array([(one.low, one.high) for one in figures]).T - heights)
        places = middles + (number - (len(drawn) - 1) / 2) * width
        axes.bar(
            places, heights, 0.92 * width, color=_look(number)[0], yerr=spans,
            hatch="///" if number >= len(COLOURS) else None, edgecolor="white", linewidth=0,
            error_kw={"elinewidth": 0.9, "ecolor": INK, "alpha": 0.75},
        )  # fmt: skip
        if len(drawn) <= NUMBERED:
            _number(axes, places, figures, upright=len(drawn) > 2)
    axes.margins(y=0.3 if 2 < len(drawn) <= NUMBERED else 0.17)  # room for the numbers
    axes.axhline(0, color=INK, linewidth=0.8, alpha=0.5)
    axes.axvline(len(SHARES) - 0.5 + GAP / 2, color=INK, linewidth=0.8, alpha=0.25)
    axes.set_xticks(middles, [SHARE_TITLES[share] for _, share in GROUPS], fontsize=9)
    axes.tick_params(axis="x", length=0)
    for first, text in ((0, "climb: clean image → ridge"), (len(SHARES), "descent: ridge → last row")):
        axes.annotate(
            text, (middles[first + 1], 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=9.5
        )  # fmt: skip
    axes.set_title("What log κ is made of: mean shares, which add up (whiskers: 95 % intervals)", pad=20)
    axes.set_ylabel("change (nats)")


def _number(axes: Axes, places: np.ndarray, figures: Sequence[Interval], upright: bool) -> None:
    """The value of each bar beyond its whisker."""
    for place, one in zip(places, figures, strict=True):
        if np.isnan(one.value):
            continue
        above = round(one.value, 1) >= 0
        axes.annotate(
            f"{one.value:+z.1f}".replace("-", "−"), (place, one.high if above else one.low), textcoords="offset points",
            xytext=(0, 3 if above else -3), ha="center", va="bottom" if above else "top", fontsize=7.5,
            rotation=90 if upright else 0,
        )  # fmt: skip


def _legend(shown: Comparison) -> tuple[list[Line2D], list[str]]:
    """One line a run, then what the marks mean, where there are any."""
    handles, names = [], []
    drawn = shown.drawn
    for number, (name, run) in enumerate(drawn.items()):
        colour, line = _look(number)
        handles.append(Line2D([], [], color=colour, linestyle=line, linewidth=2.4))
        long = f" ({run.steps:.0f} step{'' if run.steps == 1 else 's'})"
        names.append(name + (long if shown.axis == "fraction" else ""))
    marks = {True: "median flip", False: "median flip (fewer than half of the images)"}
    for most in sorted({run.flips_most for run in drawn.values() if run.flip is not None}, reverse=True):
        face = INK if most else "white"
        handles.append(
            Line2D([], [], marker="o", linestyle="", color=INK, markerfacecolor=face, markersize=7)
        )
        names.append(marks[most])
    return handles, names


def _look(number: int) -> tuple[str, Literal["-", "--", "-.", ":"]]:
    """Colour and line style of a run by its position."""
    return COLOURS[number % len(COLOURS)], LINES[number % len(LINES)]


def decided(plans: Mapping[str, Plan], baseline: str) -> dict[str, dict[str, str]]:
    """What decided the numbers where the runs differ: part of the plan → run → its value as text."""
    parts = dict.fromkeys(part for plan in plans.values() for part in plans[baseline].differences(plan))
    content = {name: _flat(plan.model_dump(mode="json")) for name, plan in plans.items()}
    keys = dict.fromkeys(key for flat in content.values() for key in flat)
    chosen = [key for key in keys if any(key == part or key.startswith(f"{part}.") for part in parts)]
    chosen += [f"{room}.spec" for room in ("model", "data") if f"{room}.fingerprint" in parts]
    found = {}
    for key in (one for one in keys if one in chosen):
        values = {name: flat.get(key, "–") for name, flat in content.items()}
        if len(set(values.values())) > 1:
            found[key] = values
    return found


def _flat(content: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Nested settings as dotted names; fingerprints shortened, many measures as their number and a digest."""
    found: dict[str, str] = {}
    for name, value in content.items():
        key = f"{path}{name}"
        if key == "recording.measures":
            listed = [f"{measure} {version}" for measure, version in value.items()]
            digest = hashlib.sha256("".join(sorted(listed)).encode()).hexdigest()[:6]
            found[key] = ", ".join(listed) if len(listed) <= FEW else f"{len(listed)} ({digest})"
        elif isinstance(value, dict):
            found |= _flat(value, f"{key}.")
        elif name in LENGTHS and value is not None:
            found[key] = _pixels(value)
        else:
            found[key] = str(value)[:12] if name == "fingerprint" else str(value)
    return found


def run_names(plans: Sequence[Plan], paths: Sequence[Path]) -> list[str]:
    """A different name for each run: attack, model, ball and images where they differ, then finer settings, then folders."""
    labels = [
        [plan.attack.name for plan in plans],
        _apart([plan.model.fingerprint for plan in plans], _model_labels(plans)),
        [_ball(plan) for plan in plans],
        _apart([plan.data.fingerprint for plan in plans], _data_labels(plans)),
    ]
    names = [", ".join(part) for part in zip(*(one for one in labels if len(set(one)) > 1), strict=True)]
    for finer in (*_finer(plans), *([path.name for path in paths], [str(path) for path in paths])):
        longer = [
            ", ".join(filter(None, pair)) for pair in zip(names or [""] * len(plans), finer, strict=True)
        ]
        if len(set(longer)) > len(set(names)) and len(set(finer)) > 1:
            names = longer
        if len(set(names)) == len(plans):
            break
    return names


def _apart(fingerprints: list[str], candidates: Sequence[list[str]]) -> list[str]:
    """The first labels that differ wherever the fingerprints do; alike where none do."""
    different = len(set(fingerprints))
    if different == 1:
        return [""] * len(fingerprints)
    return next(
        (
            one
            for one in candidates
            if len(set(zip(fingerprints, one, strict=True))) == different == len(set(one))
        ),
        [one[:8] for one in fingerprints],
    )


def _model_labels(plans: Sequence[Plan]) -> list[list[str]]:
    """By the arguments that differ, by callable, by weights, by file, and by file and arguments."""
    keys = dict.fromkeys(key for plan in plans for key in plan.model.arguments)
    differing = [key for key in keys if len({plan.model.arguments.get(key) for plan in plans}) > 1]
    arguments = [" ".join(plan.model.arguments.get(key, "default") for key in differing) for plan in plans]
    callables = [plan.model.spec.rpartition(":")[2] for plan in plans]
    files = ["/".join(Path(plan.model.spec.rpartition(":")[0]).parts[-2:]) for plan in plans]
    both = [f"{name} {text}".strip() for name, text in zip(files, arguments, strict=True)]
    weights = [Path(plan.model.weights or "").stem for plan in plans]
    return [arguments, callables, weights, files, both]


def _data_labels(plans: Sequence[Plan]) -> list[list[str]]:
    """By file, by folder and file, and by these with the number of images."""
    short = [Path(plan.data.spec.rpartition(":")[2]).stem for plan in plans]
    tails = [_tail(plan.data.spec) for plan in plans]
    counts = [f"{plan.data.examples} images" for plan in plans]
    return [short, tails, counts, [f"{name} {count}" for name, count in zip(tails, counts, strict=True)]]


def _tail(spec: str) -> str:
    """The last two parts of where images came from, without their kind."""
    return "/".join(Path(spec.partition(":")[2] or spec).parts[-2:])


def _ball(plan: Plan) -> str:
    """Norm and radius as people write them; attacks without a radius have none."""
    settings = plan.attack.settings
    radius = settings.get("eps")
    ball = [str(settings.get("norm", "")), "" if radius is None else _pixels(radius)]
    return " ".join(filter(None, ball)) or "no ball"


def _pixels(length: float) -> str:
    plain = f"{length:g}"
    return plain if len(plain) <= 5 else f"{length * 255:.4g}/255"


def _finer(plans: Sequence[Plan]) -> list[list[str]]:
    """Labels that are used only where the coarse ones leave two runs alike."""
    return [
        [f"{plan.recording.steps} steps" for plan in plans],
        [f"step {_pixels(plan.attack.settings.get('step_size') or 0.0)}" for plan in plans],
        ["random start" if plan.attack.settings.get("random_start") else "clean start" for plan in plans],
        [
            f"target {plan.attack.target}" if plan.attack.settings.get("targeted") else "no target"
            for plan in plans
        ],
        [f"seed {plan.recording.seed}" for plan in plans],
        [plan.model.dtype for plan in plans],
        ["prepared" if plan.model.prepared else "as given" for plan in plans],
    ]


def title_of(plans: Sequence[Plan]) -> str:
    """What all runs share: attack and images."""
    attacks, data = {plan.attack.name for plan in plans}, {_tail(plan.data.spec) for plan in plans}
    attack, images = "/".join(sorted(attacks)), " and ".join(sorted(data))
    return f"{attack if len(attack) < 40 else 'attacks'} on {images if len(images) < 40 else 'several data'}: {len(plans)} runs"
