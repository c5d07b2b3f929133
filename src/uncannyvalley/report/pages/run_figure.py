"""The walk of a run as one static figure: ``walk.png``, and the page where scripts are off."""

import numpy as np

from uncannyvalley.analysis.common_axis import SHARPNESS
from uncannyvalley.analysis.curves import curve
from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.analysis.summary import PhaseSummary
from uncannyvalley.report.drawings.figures import LowerPanel, WalkFigure
from uncannyvalley.report.pages.run_curves import RunCurves, run_curves
from uncannyvalley.report.pages.run_words import figure_title
from uncannyvalley.run.folder import RunFolder

BESIDE_COLOUR = "#009E73"
"""Not that of a control, whose target loss is in the same panel."""

CONFIDENCES = (0.0, 1.05)


def walk_figure(run: RunFolder, found: Phases, summary: PhaseSummary) -> WalkFigure:
    """What the figure of a run shows, of images or of prompts."""
    return figure_of_walks(figure_title(run), found, summary, run_curves(found))


def figure_of_walks(title: str, found: Phases, summary: PhaseSummary, drawn: RunCurves) -> WalkFigure:
    """log κ of the attack beside its controls, its shares, and below them what else was recorded."""
    lower = _lower_of_prompts if found.trajectory.subject == "prompt" else _lower_of_images
    return WalkFigure(
        title,
        drawn.of(SHARPNESS),
        drawn.shares,
        summary.walks[0],
        lower(found, drawn),
        drawn.axis,
        summary.words.start,
        "examples" if found.trajectory.subject == "image" else summary.words.many,
    )


def _lower_of_images(found: Phases, drawn: RunCurves) -> LowerPanel:
    """Loss and confidence, or what there is of them; a run that recorded neither has its feature norm."""
    attack, curves = drawn.attack, drawn.of_walk[drawn.attack]
    loss, confidence = curves.get("loss"), curves.get("confidence")
    if loss is None and confidence is None:
        norm = curve(found.trajectory, "feature_norm")
        return LowerPanel("Norm of the features, |φ| (median)", [(attack, norm)], norm.unit, None, "")
    if loss is None or confidence is None:
        name, label = ("loss", "loss (nats)") if confidence is None else ("confidence", "confidence")
        title = drawn.titles[name]
        return LowerPanel(
            f"{title[0].upper()}{title[1:]} (median)", [(attack, curves[name])], label, None, ""
        )
    return LowerPanel(
        "Loss of the true class and confidence in the predicted one (medians)", [(attack, loss)], "loss (nats)", confidence,
        "confidence", CONFIDENCES,
    )  # fmt: skip


def _lower_of_prompts(found: Phases, drawn: RunCurves) -> LowerPanel:
    """A soft prompt has no tokens, and so no perplexity: confidence stands in for it."""
    losses = list(drawn.of("loss").items())
    perplexity = drawn.of_walk[drawn.attack].get("log_perplexity")
    if perplexity is not None and np.isfinite(perplexity.median).any():
        return LowerPanel(
            "Target loss, and log perplexity of the attack's suffix (dash-dotted), medians", losses, "loss (nats)",
            perplexity, "nats a token", None, BESIDE_COLOUR,
        )  # fmt: skip
    return LowerPanel(
        "Target loss, and confidence in the predicted token (dash-dotted), medians", losses, "loss (nats)",
        drawn.of_walk[drawn.attack].get("confidence"), "confidence", CONFIDENCES, BESIDE_COLOUR,
    )  # fmt: skip
