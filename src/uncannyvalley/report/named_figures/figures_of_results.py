"""Figures of what is no single walk: several runs, evaluations, bounds, radii, trainings, layers."""

from collections.abc import Callable
from functools import partial

from matplotlib.figure import Figure

from uncannyvalley.analysis.common_axis import SHARPNESS
from uncannyvalley.analysis.comparison import compare_runs
from uncannyvalley.analysis.walked import Walked
from uncannyvalley.errors import InputError
from uncannyvalley.report.detectors.loading import roc_figure
from uncannyvalley.report.detectors.rates_figure import draw_rates
from uncannyvalley.report.drawings.comparison import draw_comparison
from uncannyvalley.report.named_figures.drawn_folders import DrawnFolders
from uncannyvalley.report.named_figures.stored_curvature import CURVATURE_FILE, depth_figure, read_curvature
from uncannyvalley.report.proofs.stored_bounds import BOUNDS_FILE, bounds_figure
from uncannyvalley.report.proofs.stored_radii import RADII_FILE, radii_figure
from uncannyvalley.report.trainings.stored_training import read_training
from uncannyvalley.report.trainings.training import draw_training
from uncannyvalley.run.naming import run_names, title_of
from uncannyvalley.run.request import doubts_of

Draw = Callable[[], Figure]

MOST_RUNS = 12
"""Colours and line styles tell so many runs apart."""


def comparison(shown: DrawnFolders) -> Draw:
    """Several runs over one axis."""
    runs = shown.runs
    if not 2 <= len(runs) <= MOST_RUNS:
        raise InputError(
            f"it is drawn of 2 to {MOST_RUNS} runs, and here {'is' if len(runs) == 1 else 'are'} {len(runs)}"
        )
    if len({run.plan.prompts is None for run in runs}) > 1:
        raise InputError(
            "walks of images and of prompts are not compared: their phases mean different things"
        )

    def draw() -> Figure:
        plans = [run.plan for run in runs]
        names = run_names(plans, [run.path for run in runs])
        walked = {
            name: Walked(run.trajectory, run.plan.data.fingerprint, run.controls(), doubts_of(run))
            for name, run in zip(names, runs, strict=True)
        }
        found = compare_runs(walked, measures=[SHARPNESS])
        if all(one.curve is None for one in found.drawn.values()):
            raise InputError(f"none of these runs recorded {SHARPNESS} of correctly classified images")
        return draw_comparison(title_of(plans), found)

    return draw


def roc(shown: DrawnFolders) -> Draw:
    """A detector's curves."""
    return partial(roc_figure, shown.evaluation)


def rates(shown: DrawnFolders) -> Draw:
    """What a detector flags, attack by attack and where nobody attacks."""
    return partial(draw_rates, shown.evaluation)


def bound(shown: DrawnFolders) -> Draw:
    """Loss changes under their bounds."""
    return partial(bounds_figure, shown.proof(BOUNDS_FILE, "uncanny bound"))


def radii(shown: DrawnFolders) -> Draw:
    """Certified accuracy over the radius."""
    return partial(radii_figure, shown.proof(RADII_FILE, "uncanny certify --out"))


def training(shown: DrawnFolders) -> Draw:
    """Losses and accuracies over the epochs."""
    if len(shown.trainings) != 1:
        raise InputError(
            f"it is drawn of one training, and here {'are' if shown.trainings else 'is'} {len(shown.trainings) or 'none'}"
        )
    stored = read_training(shown.trainings[0])
    return partial(draw_training, stored.title, stored.history, stored.attack)


def depth(shown: DrawnFolders) -> Draw:
    """Curvature over the layers."""
    place = shown.file(CURVATURE_FILE, "uncanny measure --out")
    return partial(depth_figure, f"Curvature over depth, {place.parent.name}", read_curvature(place))
