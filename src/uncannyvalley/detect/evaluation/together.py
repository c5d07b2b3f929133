"""Many recipes fitted to the same clean images of one network, each image looked at once for all of them."""

from collections.abc import Mapping

from uncannyvalley.detect.clean_images import clean_images
from uncannyvalley.detect.columns import make_columns
from uncannyvalley.detect.evaluation.progress import Progress, started
from uncannyvalley.detect.evaluation.shared_looks import Onlookers
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.recipes import Recipe
from uncannyvalley.detect.references import fit_references
from uncannyvalley.detect.sharpness_detector import SharpnessDetector
from uncannyvalley.splitting import SplitModel


def fit_together(
    model: SplitModel,
    recipes: Mapping[str, Recipe],
    x_clean: object,
    calibration: object = None,
    *,
    fpr: float = 0.05,
    seed: int = 0,
    batch_size: int = 128,
    progress: Progress | None = None,
) -> dict[str, ImageDetector]:
    """Name → the detector that ``ImageDetector(model, recipe=…).fit(x_clean, calibration)`` gives, number for number.

    Raises InputError for images out of range, and for too few of them.
    """
    images = clean_images(x_clean, calibration, fpr, seed)
    x, held = images.fitted, images.held
    columns = {name: make_columns(one.columns, model) for name, one in recipes.items()}
    group = Onlookers.of(model, columns, seed=seed, batch_size=batch_size)
    references = [one for each in columns.values() for one in each.references.values()]
    fit_references(references, model, x, batch_size)
    advance = started(progress, "fitting baselines", len(x) + len(held))
    fitted, held_rows = group.read(x, advance), group.read(held, advance)
    found = {}
    for name, recipe in recipes.items():
        estimator = SharpnessDetector(recipe.questions, recipe.columns, fpr)
        (rows, classes), (clean, its_classes) = fitted[name], held_rows[name]
        estimator.fit(rows, classes=classes).calibrate(clean, classes=its_classes)
        kept = {which: one.arrays() for which, one in columns[name].references.items()}
        made = ImageDetector(model, fpr=fpr, seed=seed, recipe=recipe, batch_size=batch_size)
        found[name] = made.restored(model, kept, estimator)
    return found
