"""Figures of a recorded run: each function says at once why it cannot be drawn, and else returns what draws it."""

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from uncannyvalley.errors import InputError
from uncannyvalley.report.drawings.figures import draw_panel, draw_walk
from uncannyvalley.report.drawings.image_strips import ImageStrip, draw_image_strips, image_strip
from uncannyvalley.report.drawings.phase_figures import draw_distributions, draw_flips
from uncannyvalley.report.named_figures.drawn_folders import DrawnFolders
from uncannyvalley.report.pages.run_facts import class_names_of
from uncannyvalley.report.pages.run_words import figure_title
from uncannyvalley.report.suffixes.suffix_figure import draw_suffixes
from uncannyvalley.report.suffixes.suffix_strips import suffix_strips
from uncannyvalley.run.folder import RunFolder

Draw = Callable[[], Figure]

MOST_STRIPS = 6
"""Examples whose images are shown."""

MOST_SUFFIXES = 3
"""Prompts whose suffixes are shown."""

TEMPERATURES = (0.5, 2.0, 4.0, 8.0)
"""Of the head, beside the recorded one."""


def walk(shown: DrawnFolders) -> Draw:
    """log κ, its shares, and two more measures."""
    return partial(draw_walk, shown.walk)


def panel(name: str, shown: DrawnFolders) -> Draw:
    """One of its panels."""
    return partial(draw_panel, shown.walk, name)


def distributions(shown: DrawnFolders) -> Draw:
    """Heights of ridges and depths of valleys."""
    return partial(draw_distributions, figure_title(shown.run), shown.phases)


def flips(shown: DrawnFolders) -> Draw:
    """Shares of examples that have flipped, and that are in the valley."""
    return partial(draw_flips, figure_title(shown.run), shown.phases, shown.walk.axis)


def strips(shown: DrawnFolders) -> Draw:
    """Kept images, or suffixes."""
    run = shown.run
    if run.plan.prompts is not None:
        found = suffix_strips(run.trajectory, shown.phases, MOST_SUFFIXES)
        return partial(draw_suffixes, figure_title(run), found, shown.width)
    images = _image_strips(run, shown)
    return partial(draw_image_strips, figure_title(run), images)


def _image_strips(run: RunFolder, shown: DrawnFolders) -> list[ImageStrip]:
    """The first examples with kept images, those that flipped from a correct prediction before others."""
    kept = run.images()
    if not kept:
        raise InputError("the run kept no images; record it with --keep-images")
    found, names = shown.phases, class_names_of(run)
    walks = {name: run.trajectory.column(name) for name in ("log_relative_sharpness", "predicted")}
    rows = {int(example): row for row, example in enumerate(run.trajectory.examples)}
    flips_of = dict(zip(found.column("example").tolist(), found.column("flip_step").tolist(), strict=True))
    labels = dict(zip(found.column("example").tolist(), found.column("label").tolist(), strict=True))
    there = [example for example in kept if example in labels]
    chosen = sorted(there, key=lambda one: (not flips_of[one] > 0, list(kept).index(one)))[:MOST_STRIPS]
    return [
        image_strip(
            example,
            labels[example],
            kept[example],
            {name: np.asarray(values[rows[example]], dtype=float) for name, values in walks.items()},
            names,
        )
        for example in chosen
    ]


def temperatures(shown: DrawnFolders) -> Draw:
    """The recorded path at several temperatures of the head."""
    from uncannyvalley.replaying.replayable_run import replayable_run
    from uncannyvalley.report.drawings.replay_figure import draw_replay, figure_of_replays

    found = replayable_run(shown.run)

    def draw() -> Figure:
        heads = [found.head(one, None) for one in TEMPERATURES]
        return draw_replay(figure_of_replays(found, [(one, found.under(one)) for one in heads]))

    return draw
