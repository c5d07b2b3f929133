"""Networks, images and recorded walks of the study; a walk is recorded once and kept in the cache."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq
from torch import nn

import uncannyvalley as uv
from uncannyvalley import data, zoo
from uncannyvalley.data import Images
from uncannyvalley.errors import InputError
from uncannyvalley.report.drawings.figures import ATTACK_COLOUR
from uncannyvalley.storing.files import write_whole

Size = TypeVar("Size")

DOUBLED = math.log(2)
"""Nats by which κ must rise on the way to the flip, and fall below the clean κ at the end: a factor of two."""

MOST = 0.5
"""A pattern is the rule where more than half of the images surely show it."""

COLOURS = (ATTACK_COLOUR, "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A", "#8C6D00")
"""Told apart by readers with any colour vision."""


@dataclass(frozen=True)
class World:
    """Where things are, and how much is measured.

    shared  folder with the shared networks and images    images  of one walk
    cache   walks and trained networks are kept there     quick   tiny sizes, for tests: numbers mean nothing
    """

    shared: Path
    cache: Path
    images: int = 128
    quick: bool = False

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InputError(f"at least one image is needed, got {self.images}")

    def few(self, count: Size, quick: Size) -> Size:
        """``count``, or ``quick`` where things are quick."""
        return quick if self.quick else count

    def path(self, name: str) -> Path:
        """A file of this version's cache."""
        self.cache.mkdir(parents=True, exist_ok=True)
        return self.cache / f"{name}.v{uv.__version__}"

    def network(self, name: str) -> uv.SplitModel:
        """A shared network, or the demo's network for "digits"."""
        return _network(self.shared, name)

    def original(self, name: str) -> nn.Module:
        """A shared network as it was loaded."""
        return zoo.load(f"{self.shared}/models/load_reference.py:load", {"name": name})

    def photographs(self, name: str, count: int | None = None) -> Images:
        """Test images that a network of this name looks at, the first ``count`` (default: ``images``)."""
        return _photographs(self.shared, name.split("_")[0]).first(count or self.images)

    def walk(self, network: str, attack: uv.Attack, steps: int, count: int | None = None) -> uv.Trajectory:
        """The recorded walk of an attack on a network's test images."""
        seen = self.photographs(network, count)
        name = f"{network}-{titled(attack)}-{steps}-{len(seen)}"
        return self.kept(
            name, lambda: uv.record(self.network(network), seen[:], seen.labels, attack, steps=steps)
        )

    def kept(self, name: str, make: Callable[[], uv.Trajectory]) -> uv.Trajectory:
        """What ``make`` records, from the cache where it is there."""
        path = self.path(f"{name}.parquet")
        if not path.exists():
            made = make()
            write_whole(path, lambda scratch: pq.write_table(made.table, scratch))
        return uv.Trajectory(pq.read_table(path))


def titled(attack: uv.Attack) -> str:
    """An attack's name with what tells its settings from others'."""
    settings = json.dumps(dict(attack.settings), sort_keys=True, default=str)
    return f"{attack.name}-{hashlib.sha256(settings.encode()).hexdigest()[:10]}"


@cache
def _network(shared: Path, name: str) -> uv.SplitModel:
    if name == "digits":
        return uv.split(zoo.demo(), data.digits("test")[:8])
    net = zoo.load(f"{shared}/models/load_reference.py:load", {"name": name})
    return uv.split(net, _photographs(shared, name.split("_")[0])[:8])


@cache
def _photographs(shared: Path, dataset: str) -> Images:
    return (
        data.digits("test")
        if dataset == "digits"
        else data.load(f"parquet:{shared}/data/{dataset}/test.parquet")
    )


@dataclass(frozen=True)
class Pattern:
    """What the walks of the images that were right at first did, an entry an image.

    rise     largest log κ from the clean image up to and with the flip − clean log κ; to the end without a flip
    fall     clean log κ − last log κ          flipped  the label was wrong at some row
    wrong    the label is wrong at the last row
    flip, ridge  rows of flip (NaN without one) and of the largest log κ
    """

    rise: np.ndarray
    fall: np.ndarray
    flipped: np.ndarray
    wrong: np.ndarray
    flip: np.ndarray
    ridge: np.ndarray

    @property
    def doubles(self) -> np.ndarray:
        """κ at least doubles by the time the label flips."""
        return self.flipped & (self.rise >= DOUBLED)

    @property
    def valley(self) -> np.ndarray:
        """The walk ends on a wrong label at less than half the clean κ."""
        return self.wrong & (self.fall >= DOUBLED)

    @property
    def whole(self) -> np.ndarray:
        """Up until the flip, then down below the clean κ, label still wrong."""
        return self.doubles & self.valley


def pattern(trajectory: uv.Trajectory) -> Pattern:
    """The pattern of each image that was right at first."""
    sharpness, wrong = (trajectory.column(name) for name in ("log_relative_sharpness", "adversarial"))
    right = wrong[:, 0] == 0
    sharpness, wrong = sharpness[right], wrong[right] == 1
    rows = np.arange(sharpness.shape[1])
    flipped = wrong.any(axis=1)
    flip = np.where(flipped, wrong.argmax(axis=1), np.nan)
    until = np.where(flipped, wrong.argmax(axis=1), sharpness.shape[1])
    there = ~np.isnan(sharpness)
    before = np.where(there & (rows <= until[:, None]), sharpness, -np.inf)
    last = np.where(there, rows, -1).max(axis=1)
    everyone = np.arange(len(sharpness))
    return Pattern(
        rise=before.max(axis=1) - sharpness[:, 0],
        fall=sharpness[:, 0] - sharpness[everyone, last],
        flipped=flipped,
        wrong=wrong[everyone, last],
        flip=flip,
        ridge=np.where(there, sharpness, -np.inf).argmax(axis=1).astype(float),
    )


def changes(trajectory: uv.Trajectory) -> np.ndarray:
    """log κ − clean log κ of the images that were right at first, (images, rows)."""
    sharpness = trajectory.column("log_relative_sharpness")
    right = trajectory.column("adversarial")[:, 0] == 0
    return sharpness[right] - sharpness[right, :1]
