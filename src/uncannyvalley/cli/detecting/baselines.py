"""Baselines fitted to the same clean images as the detector that they are held against."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from uncannyvalley.errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from uncannyvalley.detect.evaluation.progress import Progress
    from uncannyvalley.detect.image_detector import ImageDetector
    from uncannyvalley.splitting import SplitModel


def chosen_baselines(wanted: bool | None, names: Sequence[str], has_data: bool) -> list[str]:
    """Names of the baselines asked for: those named, or all; none where nothing says with what to fit them.

    Raises InputError for unknown names, and where baselines are wanted without clean images to fit them to.
    """
    from uncannyvalley.detect.baselines import BASELINES

    for name in names:
        if name not in BASELINES:
            raise unknown_name("baseline", name, BASELINES)
    if wanted is False or (wanted is None and not names and not has_data):
        return []
    if not has_data:
        raise InputError(
            "baselines are fitted like the detector: name its clean images with --fit-data (and --fit-calibration, as in "
            "uncanny detect fit), or leave baselines out with --no-baselines"
        )
    return list(names) or list(BASELINES)


def fit_baselines(
    names: Sequence[str],
    detector: "ImageDetector",
    clean: "Tensor",
    calibration: "Tensor | None",
    progress: "Progress | None",
) -> "tuple[dict[str, ImageDetector], list[str]]":
    """Name → fitted baseline at the detector's rate and seed, and notes on what the images do not allow."""
    from uncannyvalley.detect.baselines import baseline
    from uncannyvalley.detect.evaluation import fit_together

    model = detector.model
    moves, notes = kept_moves(model, clean, detector.seed), []
    recipes = {}
    for name in names:
        recipe = baseline(name, moves=moves) if moves else baseline(name)
        moved = any("@" in column for column in recipe.columns)
        if moved and (clean.dim() != 4 or not moves):
            notes.append(f"the baseline {name} is left out: these images allow no small changes")
        else:
            recipes[name] = recipe
    fitted = fit_together(
        model, recipes, clean, calibration, fpr=detector.fpr, seed=detector.seed, batch_size=detector.batch_size,
        progress=progress,
    )  # fmt: skip
    return fitted, notes


def kept_moves(model: "SplitModel", clean: "Tensor", seed: int) -> tuple[str, ...]:
    """The first changes, as many as baselines use, that leave the predicted class of clean images alone."""
    from uncannyvalley.detect.baselines import MOVED
    from uncannyvalley.detect.clean_images import allowed_changes
    from uncannyvalley.detect.recipes import MOVES

    return tuple(allowed_changes(model, clean, MOVES, len(MOVED), seed)[0]) if clean.dim() == 4 else ()
