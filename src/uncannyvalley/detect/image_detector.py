"""The detector on images: fitted to clean ones, its false-positive rate promised and kept."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from uncannyvalley.checks import check_count, check_images
from uncannyvalley.detect.clean_images import allowed_changes, clean_images
from uncannyvalley.detect.columns import Columns, backwards_of_layer, make_columns
from uncannyvalley.detect.conformal import Calibration, check_fpr
from uncannyvalley.detect.looks import Looker
from uncannyvalley.detect.recipes import MOVES, Recipe, recipe_of
from uncannyvalley.detect.references import fit_references
from uncannyvalley.detect.sharpness_detector import SharpnessDetector
from uncannyvalley.errors import InputError
from uncannyvalley.splitting import SplitModel, split
from uncannyvalley.types import PerExample, Probe

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """All that a detector learned: the network's copy, what is read off it, and the scores of clean rows."""

    model: SplitModel
    recipe: Recipe
    columns: Columns
    looker: Looker
    estimator: SharpnessDetector


class ImageDetector:
    """Whether a network's decision about an image can be trusted, in at most ``budget`` forwards.

    net     an nn.Module in evaluation mode, or a SplitModel
    fpr     share of clean images that may be flagged: kept in finite samples, for calibration images that the network
            was not trained on
    budget  forwards a decision, the network's own included; a backward counts one
    seed    of the split of ``fit`` and of the noise, which is the same for every image
    recipe  other columns and questions than those of the budget

    One-class: only clean images are ever seen, and no labels. A row's score depends on that row alone.

    Example
    -------
    >>> detector = ImageDetector(net, fpr=0.05, budget=4).fit(x_train, calibration=x_unseen)  # doctest: +SKIP
    >>> detector.predict(x)  # +1 clean, −1 suspicious                                        # doctest: +SKIP
    """

    def __init__(
        self,
        net: nn.Module | SplitModel,
        *,
        fpr: float = 0.05,
        budget: int = 1,
        seed: int = 0,
        recipe: Recipe | None = None,
        batch_size: int = 128,
    ) -> None:
        self.net, self.fpr = net, check_fpr(fpr)
        self.seed = check_count("seed", seed, 0) % 2**63
        self.budget = check_count("budget", budget, 1)
        self.batch_size = check_count("batch_size", batch_size, 1)
        if recipe is not None and not isinstance(recipe, Recipe):
            raise InputError(f"recipe must be a Recipe, or None for that of the budget; got {recipe!r}")
        self._wanted = recipe or recipe_of(self.budget)
        self._choose = recipe is None
        self.notes: list[str] = []
        self._fitted: Fitted | None = None

    def fit(self, x_clean: object, calibration: object = None) -> "ImageDetector":
        """Learn what clean images look like from ``x_clean`` (n, …) in [0, 1], and fix the threshold on ``calibration``.

        Without ``calibration`` x_clean is split in two halves by the seed, and ``notes`` says so: then *all* of x_clean
        must be images that the network was not trained on.

        Raises InputError for images out of range, for too few of them, with the number needed, and where most calibration
        images are also among x_clean.
        """
        images = clean_images(x_clean, calibration, self.fpr, self.seed)
        x, notes = images.fitted, list(images.notes)
        model = self.net if isinstance(self.net, SplitModel) else split(self.net, x[:8])
        recipe = self._recipe(model, x, notes)
        estimator = SharpnessDetector(recipe.questions, recipe.columns, self.fpr)
        fitted = self._with(model, recipe, estimator)
        fit_references(fitted.columns.references.values(), model, x, self.batch_size)
        rows, classes = self._read(fitted, x)
        estimator.fit(rows, classes=classes)
        rows, classes = self._read(fitted, images.held)
        estimator.calibrate(rows, classes=classes)
        self._fitted, self.notes = fitted, notes  # only now: a fit that fails leaves the old one whole
        for note in notes:
            _log.info(note)
        return self

    def recalibrate(self, x_traffic: object, contamination: float) -> "ImageDetector":
        """Fix the threshold anew on unlabelled images of one's own, of which at most the share ``contamination`` is not clean.

        The promise then holds for clean images like these; it is kept whatever the contaminating images score, at the
        price of detection where they score high. Raises InputError for too few images.
        """
        rows, classes = self.columns(x_traffic)
        self.estimator.calibrate(rows, classes=classes, contamination=contamination)
        return self

    def columns(self, x: object) -> tuple[np.ndarray, np.ndarray]:
        """What the detector reads of images: columns (n, p) float64 and predicted classes (n,)."""
        return self._read(self.fitted, check_images(x))

    def _read(self, fitted: Fitted, x: Float[Tensor, "n ..."]) -> tuple[np.ndarray, np.ndarray]:
        fitted.model.check_fresh()
        rows, classes = [], []
        with (
            torch.inference_mode(False),
            torch.no_grad(),
        ):  # columns of walks and layers need gradients inside
            x = x.clone() if x.is_inference() else x
            for part in x.split(self.batch_size):
                look = fitted.looker(part)
                rows.append(fitted.columns.read(look).cpu())
                classes.append(look.predicted.cpu())
        return torch.cat(rows).numpy(), torch.cat(classes).numpy()

    def p_values(self, x: object) -> np.ndarray:
        """(n,): the share of clean images at least as suspicious; at most fpr = flagged."""
        rows, classes = self.columns(x)
        return self.estimator.p_values(rows, classes)

    def score_samples(self, x: object) -> np.ndarray:
        """(n,) float64; low = suspicious."""
        rows, classes = self.columns(x)
        return self.estimator.score_samples(rows, classes)

    def predict(self, x: object) -> np.ndarray:
        """(n,): +1 clean, −1 suspicious."""
        rows, classes = self.columns(x)
        return self.estimator.predict(rows, classes)

    def explain(self, x: object) -> dict[str, np.ndarray]:
        """Question → (n,) nats that it adds to the suspicion."""
        rows, classes = self.columns(x)
        found = self.estimator.surprises(rows, classes)
        return {one.name: found[:, i] for i, one in enumerate(self.recipe.questions)}

    @property
    def suspicion(self) -> PerExample:
        """A function of a probe, (n,) nats, high = suspicious: −score_samples, differentiable in the image.

        For attackers who know the detector: any of our attacks takes it as its score.
        """
        fitted = self.fitted

        def suspicion(probe: Probe) -> Tensor:
            look = fitted.looker.at(probe)
            return fitted.estimator.nats(fitted.columns.read(look), look.predicted).sum(dim=1)

        return suspicion

    def save(self, path: str | Path, *, model_name: str = "") -> None:
        """Write the detector to a file that holds nothing executable; ``model_name`` helps to find the network again."""
        from uncannyvalley.detect.saving import save_detector

        save_detector(self, path, model_name=model_name)

    @classmethod
    def load(cls, path: str | Path, net: nn.Module | SplitModel) -> "ImageDetector":
        """The detector of a file; InputError for another network than the one that it was fitted with."""
        from uncannyvalley.detect.saving import load_detector

        return load_detector(path, net)

    @property
    def threshold(self) -> float:
        """Suspicion above which an image is flagged."""
        return -self.estimator.offset_

    @property
    def calibration(self) -> Calibration:
        """Clean scores, with the intervals of the realised rate."""
        found = self.estimator.calibration_
        assert found is not None  # fit calibrates
        return found

    @property
    def forwards(self) -> int:
        """Forward passes of a decision."""
        return self.fitted.looker.forwards + len(self.fitted.columns.layers)

    @property
    def backwards(self) -> int:
        """Backward passes of a decision."""
        of_layers = len(self.fitted.columns.layers) * backwards_of_layer(self.model.classes)
        return self.fitted.looker.backwards + of_layers

    @property
    def fitted(self) -> Fitted:
        """What was learned; InputError before ``fit``."""
        if self._fitted is None:
            raise InputError(
                "the detector has seen no clean images yet; call fit(x_clean, calibration) first"
            )
        return self._fitted

    @property
    def model(self) -> SplitModel:
        return self.fitted.model

    @property
    def recipe(self) -> Recipe:
        return self.fitted.recipe

    @property
    def estimator(self) -> SharpnessDetector:
        """The detector on columns."""
        return self.fitted.estimator

    def restored(
        self, model: SplitModel, references: Mapping[str, dict[str, Tensor]], estimator: SharpnessDetector
    ) -> "ImageDetector":
        """This detector with what a file knows of the fitted one, whose recipe this one was given."""
        fitted = self._with(model, self._wanted, estimator)
        if references.keys() != fitted.columns.references.keys():
            raise ValueError(
                f"references {sorted(references)} where {sorted(fitted.columns.references)} are read"
            )
        for name, reference in fitted.columns.references.items():
            reference.restore(references[name], model.head.weight.shape[1])
        self._fitted = fitted
        return self

    def _with(self, model: SplitModel, recipe: Recipe, estimator: SharpnessDetector) -> Fitted:
        columns = make_columns(recipe.columns, model)
        return Fitted(model, recipe, columns, Looker(model, columns.copies, self.seed), estimator)

    def _recipe(self, model: SplitModel, x: Float[Tensor, "n ..."], notes: list[str]) -> Recipe:
        """That of the budget, with the changes alone under which clean images keep their predicted class."""
        if not self._choose or self.budget == 1:
            return self._wanted
        if x.dim() != 4:
            notes.append(
                f"inputs of shape {tuple(x.shape[1:])} are no images: one forward is used of {self.budget}"
            )
            return recipe_of(1)
        allowed, refused = allowed_changes(model, x, MOVES, self.budget - 1, self.seed)
        notes += refused
        return recipe_of(self.budget, allowed)
