"""What the networks answer to every image and to its copies, asked once and kept: all detectors of the study are made of it.

A detector's columns follow from the images, the features φ of their copies, and the sharpness at inner layers alone. Each
of these is a file of its own, so that another recipe costs only the copies that are new.
"""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import uncannyvalley as uv
from detection.attacked import digest
from uncannyvalley.detect.changes import change
from uncannyvalley.detect.columns import make_columns
from uncannyvalley.detect.looks import Look, Looker, is_walk
from uncannyvalley.storing.files import write_bytes
from uncannyvalley.types import Probe

SEED = 0
"""Of the detector's noise."""

BATCH = 128
"""As in ImageDetector, so that the numbers are its numbers."""

IMAGE = "image"
WALKS = tuple(f"{way}{step}" for way in ("climb", "descent") for step in (1, 2, 3))


@dataclass(frozen=True)
class Asker:
    """A network, whose answers are kept in ``folder`` under a digest of all that decides them."""

    model: uv.SplitModel
    weights: str
    folder: Path

    def kept(self, about: str, x: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """``ask`` of the images in batches, along dimension 0; from a file where it is there."""
        decides = json.dumps([self.weights, digest(x), about, SEED, BATCH])
        path = self.folder / f"{about}-{hashlib.sha256(decides.encode()).hexdigest()[:16]}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            np.save(content, torch.cat([ask(part) for part in x.split(BATCH)]).numpy())
            write_bytes(path, content.getvalue())
        return torch.from_numpy(np.load(path))

    def features(self, x: Tensor, copy: str) -> Tensor:
        """φ (n, d) of a copy of each image; ``IMAGE``: of the image itself."""
        if is_walk(copy):
            return self.kept("walks", x, self._walk)[:, WALKS.index(copy)]
        move = (lambda one: one) if copy == IMAGE else change(copy, SEED)
        return self.kept(copy, x, lambda part: self._ask(move(self.model.place(part))))

    def inner(self, x: Tensor, column: str) -> Tensor:
        """A column (n,) at an inner layer."""
        columns, looker = make_columns([column], self.model), Looker(self.model, ())

        def ask(part: Tensor) -> Tensor:
            with torch.no_grad():
                return columns.read(looker(part))[:, 0]

        return self.kept(column, x, ask)

    def _ask(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model.features(self.model.place(x)).contiguous()

    def _walk(self, x: Tensor) -> Tensor:
        look = Looker(self.model, WALKS)(x)
        return torch.stack([look.copies[one].features for one in WALKS], dim=1)


@dataclass(frozen=True)
class Seen:
    """Images (n, c, h, w) as a network sees them; ``count``: the first of them alone."""

    asker: Asker
    x: Tensor
    count: int | None = None

    def __len__(self) -> int:
        return len(self.x[: self.count])

    def first(self, count: int) -> "Seen":
        """The first so many images."""
        return Seen(self.asker, self.x, count)

    @property
    def predicted(self) -> Tensor:
        """Classes (n,)."""
        return self.asker.model.head.logits(self._features(IMAGE)).argmax(dim=1)

    def look(self, copies: Sequence[str]) -> Look:
        """The look at these images."""
        predicted, head = self.predicted, self.asker.model.head
        x, row = self.x[: self.count], torch.arange(len(self))

        def probe(copy: str) -> Probe:
            features = self._features(copy)
            return Probe(x, x, predicted, None, row, features, head.logits(features), head)

        return Look(probe(IMAGE), {name: probe(name) for name in copies})

    def columns(self, names: Sequence[str], fitted_to: "Seen") -> np.ndarray:
        """Columns (n, p) of a detector; ``fitted_to``: the clean images that reference columns are fitted to."""
        return np.stack([self._column(name, fitted_to) for name in names], axis=1)

    def _column(self, name: str, fitted_to: "Seen") -> np.ndarray:
        if name.startswith("inner_sharpness@"):
            return self.asker.inner(self.x[: self.count], name).numpy()
        made = make_columns([name], self.asker.model)
        for reference in made.references.values():
            reference.fit(fitted_to._features(IMAGE), fitted_to.predicted)
        with torch.no_grad():
            return made.read(self.look(made.copies)).numpy()[:, 0]

    def _features(self, copy: str) -> Tensor:
        """φ (n, d); what is cheap is asked of all images, so that it is asked once."""
        if is_walk(copy):
            return self.asker.features(self.x[: self.count], copy)
        return self.asker.features(self.x, copy)[: self.count]
