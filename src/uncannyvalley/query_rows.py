"""Queries that belong to an image → rows of a trajectory, measured in large blocks.

Many small reads of the measures would cost more than the numbers: queries wait until enough are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from uncannyvalley.measures import read
from uncannyvalley.probe import Prober, all_needs
from uncannyvalley.splitting import SplitModel
from uncannyvalley.trajectory import trajectory_schema
from uncannyvalley.types import Measure, Probe

BUFFER_ELEMENTS = 2**22
"""Numbers of queries that wait to be measured at once: 16 MB in float32."""


@runtime_checkable
class RowObserver(Protocol):
    """Sees measured rows with their examples and query numbers; keeps images, say."""

    def see_rows(
        self, ids: np.ndarray, steps: np.ndarray, probe: Probe, values: Mapping[str, np.ndarray]
    ) -> None: ...


class Queries(NamedTuple):
    """Some queries, row by row: where they were, the row before, whose they are and which of its queries."""

    x: Tensor
    previous: Tensor
    owner: Tensor
    step: Tensor
    features: Tensor
    logits: Tensor


class QueryRows:
    """Takes queries, gives tables."""

    def __init__(
        self,
        model: SplitModel,
        x: Tensor,
        y: Tensor,
        ids: np.ndarray,
        measures: tuple[Measure, ...],
        name: str,
        observer: RowObserver | None,
    ) -> None:
        self._model = model
        self._clean = x
        self._y = y
        self._ids = ids
        self._measures = measures
        self._name = name
        self._observer = observer
        self._waiting: list[Queries] = []
        self._tables: list[pa.Table] = []

    def add(self, queries: Queries) -> None:
        """Take them, and measure all that wait once there are enough."""
        self._waiting.append(queries)
        if sum(one.x.numel() for one in self._waiting) > BUFFER_ELEMENTS:
            self._measure()

    def table(self) -> pa.Table | None:
        """All rows so far, by example and query number; None where there are none."""
        self._measure()
        if not self._tables:
            return None
        return pa.concat_tables(self._tables).sort_by([("example", "ascending"), ("step", "ascending")])

    def _measure(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not sum(len(one.owner) for one in waiting):
            return
        queries = Queries(*map(torch.cat, zip(*waiting, strict=True)))
        probe = self._probe(queries)
        values = read(probe, self._measures)
        ids, steps = self._ids[queries.owner.cpu().numpy()], queries.step.cpu().numpy()
        label, predicted = probe.y.cpu().numpy(), probe.predicted.cpu().numpy()
        nought = np.zeros(len(ids), np.int32)
        columns: dict[str, Any] = {
            "run": pa.DictionaryArray.from_arrays(pa.array(nought), pa.array([self._name])),
            "example": ids, "restart": nought, "step": steps,
            "label": label, "predicted": predicted, "adversarial": predicted != label, **values,
        }  # fmt: skip
        self._tables.append(pa.table(columns, schema=query_schema(self._measures, {})))
        if self._observer is not None:
            self._observer.see_rows(ids, steps, probe, values)

    def _probe(self, queries: Queries) -> Probe:
        """The probe of many queries, with the input's gradient where a measure needs it."""
        features, logits = queries.features, queries.logits
        if logits.dtype in (torch.float16, torch.bfloat16):
            features, logits = features.float(), logits.float()
        x, previous = self._model.place(queries.x), self._model.place(queries.previous)
        clean, y = self._clean[queries.owner], self._y[queries.owner]
        probe = Probe(x, clean, y, None, queries.owner, features, logits, self._model.head, previous=previous)
        needs = all_needs(one.needs for one in self._measures)
        if not needs:
            return probe
        return replace(probe, log_loss_grad=Prober(self._model, clean, y)(x, needs).log_loss_grad)


def query_schema(measures: Sequence[Measure], about: Mapping[str, Any]) -> pa.Schema:
    """Columns of a watched walk."""
    return trajectory_schema({one.name: (one.unit, one.version) for one in measures}, about)
