"""Detectors small enough to be attacked in a test, what attackers know of them, and verdicts by the public face alone."""

import copy
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from uncannyvalley import data
from uncannyvalley.detect.adaptive import AdaptiveTable, Attacker, attack_detector, attackers
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.questions import Question
from uncannyvalley.detect.recipes import asking
from uncannyvalley.probe import Prober
from uncannyvalley.types import Attack, Probe
from uncannyvalley.walking import Recording, walk

EPS = 0.15
CLEAN = 150
"""Of the held-out digits, those that fix the threshold and that attackers know."""

AWARE = ("orthogonal", "selective", "evading", "combined loss")

NOISY = asking(
    "noisy",
    (
        Question("support", {"log_odds@noise,down": 1.0}, "low"),
        Question("rise", {"rise@noise": 1.0}, "high"),
    ),
)
"""Three forwards, one of them on noise."""


@cache
def network() -> nn.Module:
    """A small network, trained for a second on the digits."""
    images = data.digits("train")
    x, y = images[:], images.labels
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()


def held(first: int, last: int) -> tuple[Tensor, Tensor]:
    """Held-out digits and their labels; those before ``CLEAN`` fix thresholds."""
    images = data.digits("test")
    return images[first:last], images.labels[first:last]


def clean() -> Tensor:
    return held(0, CLEAN)[0]


@cache
def plain() -> ImageDetector:
    """One forward, promised 20 %."""
    return ImageDetector(network(), fpr=0.2).fit(data.digits("train")[:], clean())


@cache
def noisy() -> ImageDetector:
    return ImageDetector(network(), fpr=0.2, recipe=NOISY).fit(data.digits("train")[:], clean())


@cache
def known() -> dict[str, Attacker]:
    """Everybody against the plain detector, in few steps."""
    return attackers(plain(), EPS, 12, clean=clean(), queries=20)


@cache
def table() -> AdaptiveTable:
    """Forty digits attacked by all of these but the slow one."""
    quick = {name: one for name, one in known().items() if name != "square"}
    return attack_detector(plain(), *held(150, 190), eps=EPS, attackers=quick, doubt=False)


def unflagged(detector: ImageDetector, x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """By the public face alone: which images are misclassified, and which are not flagged."""
    wrong = detector.net(x).argmax(dim=1).numpy() != y.numpy()
    return wrong, detector.predict(x) > 0


def with_threshold(detector: ImageDetector, threshold: float) -> ImageDetector:
    """The same detector with another threshold."""
    estimator = copy.copy(detector.estimator)
    estimator.offset_ = -threshold
    twin = ImageDetector(detector.net, fpr=detector.fpr, seed=detector.seed, recipe=detector.recipe)
    return twin.restored(detector.model, {}, estimator)


def with_seed(detector: ImageDetector, seed: int) -> ImageDetector:
    """The same fit, its noise drawn from another seed."""
    twin = ImageDetector(detector.net, fpr=detector.fpr, seed=seed, recipe=detector.recipe)
    return twin.restored(detector.model, {}, detector.estimator)


def last_probe(detector: ImageDetector, attack: Attack, x: Tensor, y: Tensor, steps: int) -> Probe:
    """Where a walk ends."""
    prober = Prober(detector.model, x, y, None, attack.objective)
    return list(walk(prober, attack, Recording(steps, ()), range(len(x))))[-1][1]
