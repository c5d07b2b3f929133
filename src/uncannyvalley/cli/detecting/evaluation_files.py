"""What an evaluation leaves on the disk: evaluation.json, roc.png and report.html."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from uncannyvalley.cli.detecting.attacking import write_json
from uncannyvalley.cli.detecting.evaluation_tables import headline, shared_notes, terminal_tables
from uncannyvalley.cli.detecting.page_tables import more_tables

if TYPE_CHECKING:
    from uncannyvalley.detect.evaluation.evaluate import Evaluation
    from uncannyvalley.report.detection import RocPanel

JSON_FILE, FIGURE_FILE, PAGE_FILE = "evaluation.json", "roc.png", "report.html"

MOST_BASELINES = 8
"""Drawn beside the detector: those that flag most of its worst attack."""


def write_evaluation(
    found: "Evaluation",
    name: str,
    out: Path,
    *,
    about: Mapping[str, Any],
    doubts: Sequence[str],
    class_names: tuple[str, ...],
    command: str,
) -> dict[str, str]:
    """Write the files of the detector called ``name``; what → path."""
    from uncannyvalley.report.detection import DetectionPage, draw_roc, render_detection
    from uncannyvalley.report.figures import to_png, to_svg
    from uncannyvalley.storing.files import write_bytes

    outcome = found.detectors[name]
    title = f"{Path(str(about['detector'])).name} on {about['data']}, images from row {about['skipped']}"
    drawn = draw_roc(title, roc_panels(found, name), outcome.fpr, outcome.clean.right.out_of)
    page = DetectionPage(
        title=title,
        lead=" ".join(headline(outcome, found.prevalence)),
        figure_svg=to_svg(drawn),
        caption="Both axes are logarithmic. The dotted vertical line is the promised rate, the dots are the promised thresholds, the "
        "dotted diagonal is chance. Curves come from the held-out images themselves and promise nothing.",
        doubts=[*doubts, *shared_notes(found)],
        tables=[*terminal_tables(found, name), *more_tables(outcome, class_names, found.prevalence)],
        provenance={key: _words(value) for key, value in about.items()},
        command=command,
    )
    write_json(out / JSON_FILE, {"about": dict(about), "doubts": list(doubts), **found.to_json()})
    write_bytes(out / FIGURE_FILE, to_png(drawn))
    write_bytes(out / PAGE_FILE, render_detection(page).encode())
    return {"numbers": str(out / JSON_FILE), "figure": str(out / FIGURE_FILE), "report": str(out / PAGE_FILE)}


def roc_panels(found: "Evaluation", name: str) -> "list[RocPanel]":
    """The detector attack by attack, and at its worst attack beside baselines."""
    import numpy as np

    from uncannyvalley.report.detection import RocLine, RocPanel

    def line(detector: str, attack: str, title: str, strong: bool) -> RocLine:
        outcome = found.detectors[detector]
        one = outcome.attacks[attack]
        at = (outcome.clean.right.value, one.flagged.value)
        false, true = (np.array(rates) for rates in one.roc)
        return RocLine(title, false, true, promised=at, strong=strong)

    outcome = found.detectors[name]
    counted = [attack for attack, one in outcome.attacks.items() if one.counted]
    panels = [RocPanel("attack by attack", [line(name, one, one, one == outcome.worst) for one in counted])]
    others = [one for one in found.detectors if one != name]
    if others and outcome.worst is not None:
        worst = outcome.worst
        others.sort(key=lambda one: -found.detectors[one].attacks[worst].flagged.value)
        lines = [line(name, worst, name, True)]
        lines += [line(one, worst, one, False) for one in others[:MOST_BASELINES]]
        panels.append(RocPanel(f"its worst attack ({worst}), beside baselines", lines))
    return panels


def command_line(context: typer.Context) -> str:
    """The command that is running, with the options that were given."""
    import shlex

    words = ["uncanny", "detect", context.info_name or ""]
    for one in context.command.params:
        value = context.params.get(one.name or "")
        if one.param_type_name == "argument":
            words += [str(value)] if value is not None else []
        elif value != one.get_default(context) and value is not None:
            words += _option(one, value)
    return shlex.join(words)


def _option(one: Any, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [one.opts[0]] if value else list(one.secondary_opts[:1])
    values = value if isinstance(value, (list, tuple)) else [value]
    return [word for each in values for word in (one.opts[0], str(each))]


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
