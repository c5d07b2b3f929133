"""The figures that have names, what each shows, and whether it can be drawn of some folders."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.report.named_figures import figures_of_results as results
from uncannyvalley.report.named_figures import figures_of_walks as walks
from uncannyvalley.report.named_figures.drawn_folders import DrawnFolders


@dataclass(frozen=True)
class NamedFigure:
    """about: what it shows, in a line. ready: refuses with the reason, or returns what draws it."""

    about: str
    ready: Callable[[DrawnFolders], Callable[[], Figure]]


FIGURES = {
    "walk": NamedFigure("log κ beside the controls, its shares, loss and confidence, over the steps", walks.walk),
    "sharpness": NamedFigure("log κ beside the controls, alone", partial(walks.panel, "sharpness")),
    "shares": NamedFigure("what the change of log κ is made of, alone", partial(walks.panel, "shares")),
    "loss": NamedFigure("loss and confidence, alone", partial(walks.panel, "loss")),
    "phases": NamedFigure("how high the ridges are and how deep the valleys, over all examples", walks.distributions),
    "flips": NamedFigure("the share of examples flipped, and in the valley, at each step", walks.flips),
    "strips": NamedFigure("kept images, or a prompt's suffixes, from clean to valley", walks.strips),
    "temperatures": NamedFigure("the recorded path with the head hotter and colder", walks.temperatures),
    "comparison": NamedFigure("several runs, or a study's, over one axis", results.comparison),
    "roc": NamedFigure("a detector's ROC curves, attack by attack, on log axes", results.roc),
    "rates": NamedFigure("what a detector flags, with 95 % intervals", results.rates),
    "bound": NamedFigure("the change of the loss under its bound", results.bound),
    "radii": NamedFigure("images whose label holds within a radius", results.radii),
    "training": NamedFigure("losses and accuracies over the epochs of a training", results.training),
    "depth": NamedFigure("curvature layer by layer", results.depth),
}  # fmt: skip


def drawn(name: str, shown: DrawnFolders) -> Figure:
    """The figure of that name; InputError for an unknown name, or where it cannot be drawn, with the reason."""
    known = FIGURES.get(name)
    if known is None:
        raise unknown_name("figure", name, FIGURES)
    try:
        return known.ready(shown)()
    except InputError as error:
        raise InputError(f"{name} cannot be drawn of {_words(shown)}: {error}") from error


def reasons_against(shown: DrawnFolders) -> dict[str, str]:
    """Name of each figure → why it cannot be drawn of these folders; "" where it can."""
    found = {}
    for name, one in FIGURES.items():
        try:
            one.ready(shown)
            found[name] = ""
        except InputError as error:
            found[name] = str(error)
    return found


def _words(shown: DrawnFolders) -> str:
    return ", ".join(str(place) for place in shown.places)
