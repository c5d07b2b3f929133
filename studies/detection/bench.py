"""One network with its clean and attacked images, and what a detector's scores on them are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from detection.features import Seen
from uncannyvalley.detect.conformal import Calibration
from uncannyvalley.detect.recipes import Recipe
from uncannyvalley.detect.sharpness_detector import SharpnessDetector

FPR = 0.05


@dataclass(frozen=True)
class Bench:
    """Image sets as the network sees them.

    train, held, test  clean images: the density is fitted to the first, the threshold to the second
    labels             (n,) true classes of the test images
    attacks            name → attacked images, row by row the first of the test images
    """

    train: Seen
    held: Seen
    test: Seen
    labels: Tensor
    attacks: Mapping[str, Seen]

    @property
    def right(self) -> np.ndarray:
        """(n,): test images that are classified right."""
        return (self.test.predicted == self.labels).numpy()

    def counted(self, attack: str) -> np.ndarray:
        """Rows of an attack that count: classified right when clean and wrong when attacked."""
        pushed = self.attacks[attack]
        return self.right[: len(pushed)] & (pushed.predicted != self.labels[: len(pushed)]).numpy()

    def first(self, train: int, attacked: int) -> "Bench":
        """With that many training and attacked images, for columns that are dear."""
        fewer = {name: one.first(attacked) for name, one in self.attacks.items()}
        return replace(self, train=self.train.first(train), attacks=fewer)

    def rows(self, recipe: Recipe, images: Seen) -> tuple[np.ndarray, np.ndarray]:
        """Columns (n, p) of a recipe, and predicted classes (n,)."""
        return images.columns(recipe.columns, self.train), images.predicted.numpy()

    def fitted(self, recipe: Recipe) -> SharpnessDetector:
        """The recipe's detector, fitted to training images, its threshold from held-out ones."""
        rows, classes = self.rows(recipe, self.train)
        fitted = SharpnessDetector(recipe.questions, recipe.columns, FPR).fit(rows, classes=classes)
        held, classes = self.rows(recipe, self.held)
        return fitted.calibrate(held, classes=classes)

    def naive_rate(self, recipe: Recipe) -> float:
        """Share of test images flagged at a threshold from training images: one half is fitted, the other sets it."""
        rows, classes = self.rows(recipe, self.train)
        half = len(rows) // 2
        naive = SharpnessDetector(recipe.questions, recipe.columns, FPR)
        naive.fit(rows[:half], classes=classes[:half]).calibrate(rows[half:], classes=classes[half:])
        return float((naive.predict(*self.rows(recipe, self.test)) < 0).mean())


@dataclass(frozen=True)
class Scores:
    """Suspicion of every image set.

    calibration  of held-out images, with the promised threshold
    naive        realised rate of a threshold from training images
    clean        (n,) of the test images
    attacks      name → (m,)
    """

    name: str
    calibration: Calibration
    naive: float
    clean: np.ndarray
    attacks: Mapping[str, np.ndarray]

    @property
    def promised(self) -> float:
        """The threshold."""
        return self.calibration.threshold

    @property
    def all_clean(self) -> np.ndarray:
        """Of all clean images that were not fitted."""
        return np.concatenate([self.calibration.scores, self.clean])


def score(name: str, recipe: Recipe, bench: Bench) -> Scores:
    """Scores of the recipe's detector; no attack is seen before its threshold is fixed."""
    fitted = bench.fitted(recipe)
    assert fitted.calibration_ is not None

    def suspicion(images: Seen) -> np.ndarray:
        return -fitted.score_samples(*bench.rows(recipe, images))

    attacks = {attack: suspicion(one) for attack, one in bench.attacks.items()}
    return Scores(name, fitted.calibration_, bench.naive_rate(recipe), suspicion(bench.test), attacks)
