"""Detectors of one network look at images together: a copy that many of them read is made and answered once.

Twenty baselines take some seventy forwards an image one by one, and about fifteen together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.checks import check_images
from uncannyvalley.detect.columns import Columns, make_columns
from uncannyvalley.detect.evaluation.progress import Advance
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.looks import Look, Looker
from uncannyvalley.splitting import SplitModel

Rows = tuple[Float[np.ndarray, "n p"], Int[np.ndarray, "n"]]
"""What a detector reads of n images: its columns, and the predicted classes."""


@dataclass(frozen=True)
class Onlookers:
    """Readers of columns that share their looks: name → columns, of one network and one seed."""

    looker: Looker
    columns: Mapping[str, Columns]
    batch_size: int

    @classmethod
    def of(
        cls, model: SplitModel, columns: Mapping[str, Columns], *, seed: int, batch_size: int
    ) -> "Onlookers":
        copies = dict.fromkeys(copy for one in columns.values() for copy in one.copies)
        return cls(Looker(model, tuple(copies), seed), columns, batch_size)

    def looks(self, x: Float[Tensor, "n ..."]) -> Iterator[Look]:
        """The looks at all images, batch by batch."""
        model = self.looker.model
        model.check_fresh()
        x = x.clone() if x.is_inference() else x
        for part in x.split(self.batch_size):
            yield self.looker(part)

    def read(self, x: Float[Tensor, "n ..."], advance: Advance = lambda done: None) -> dict[str, Rows]:
        """Name → what it reads; ``advance`` is called with the images of each batch."""
        rows: dict[str, list[Tensor]] = {name: [] for name in self.columns}
        classes = []
        with (
            torch.inference_mode(False),
            torch.no_grad(),
        ):  # columns of walks and layers need gradients inside
            for look in self.looks(check_images(x)):
                for name, one in self.columns.items():
                    rows[name].append(one.read(look).cpu())
                classes.append(look.predicted.cpu())
                advance(len(look.predicted))
        predicted = torch.cat(classes).numpy()
        return {name: (torch.cat(parts).numpy(), predicted) for name, parts in rows.items()}


def onlookers(
    detectors: Mapping[str, ImageDetector], more: Mapping[str, Sequence[str]] | None = None
) -> list[Onlookers]:
    """Fitted detectors, those of one SplitModel and one seed together.

    more  name → columns that are read besides, at the first detector's looks
    """
    together: dict[tuple[int, int], dict[str, ImageDetector]] = {}
    for name, one in detectors.items():
        together.setdefault((id(one.model), one.seed), {})[name] = one
    found: list[Onlookers] = []
    for members in together.values():
        first = next(iter(members.values()))
        columns = {name: one.fitted.columns for name, one in members.items()}
        if not found:
            columns |= {name: make_columns(names, first.model) for name, names in (more or {}).items()}
        found.append(Onlookers.of(first.model, columns, seed=first.seed, batch_size=first.batch_size))
    return found
