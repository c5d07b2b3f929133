"""The detector and its network as one nn.Module: images in, logits, log κ, p-value and flag out, in one forward.

Nothing in it branches on data, so that torch.compile makes one graph of it and ``export_onnx`` a file.
"""

import copy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from uncannyvalley.detect.changes import JOIN, NOISE, Change, change
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.looks import Look, is_walk
from uncannyvalley.detect.serving.head_reading import HEAD_COLUMNS, head_reading
from uncannyvalley.detect.serving.scoring import Scoring
from uncannyvalley.errors import InputError
from uncannyvalley.find_head import tensor_of
from uncannyvalley.prepare import detached_copy
from uncannyvalley.types import Probe


class Verdict(NamedTuple):
    """What a detector says of n images beside the network's answer.

    logits                  (n, k), those of the network
    log_relative_sharpness  (n,) float64, log κ at the head; −1e30 where κ is 0
    p_value                 (n,) float64: share of clean images at least as suspicious
    flag                    (n,) bool: p_value ≤ fpr; true where anything is NaN
    """

    logits: Tensor
    log_relative_sharpness: Tensor
    p_value: Tensor
    flag: Tensor


class DetectorModule(nn.Module):
    """A fitted detector for production: ``module(images) → Verdict``, p-values and flags being those of the detector.

    It is a snapshot with a copy of the network: weights and thresholds are buffers, and later changes of the detector do
    not reach it. Any number of images at a time, of the shape that the detector was fitted with; values are not checked to lie in [0, 1].
    What budget 1 reads of the head can move to any device; further columns stay on the detector's.

    Raises InputError for detectors that need gradients (short walks and inner layers).

    Example
    -------
    >>> module = DetectorModule(detector)              # doctest: +SKIP
    >>> logits, log_kappa, p_value, flag = module(x)   # doctest: +SKIP
    """

    head_weight: Tensor
    head_bias: Tensor | None

    def __init__(self, detector: ImageDetector) -> None:
        super().__init__()
        model, estimator = detector.model, detector.estimator
        columns = detector.fitted.columns
        walks = [one for one in columns.copies if is_walk(one)]
        if walks or columns.layers:
            raise InputError(
                f"{', '.join((*walks, *columns.layers))} of recipe {detector.recipe.name!r} needs gradients of the network, which "
                "no exported module can take; use the ImageDetector itself, or a recipe of plain changes"
            )
        if model.classes < 2 or not model.head.is_pairwise:
            raise InputError(
                f"a DetectorModule keeps a table of distances between all classes: 2 to 2048, got {model.classes}"
            )
        self.body = detached_copy(model.module)
        self.register_buffer("head_weight", model.head.weight.clone())
        self.register_buffer("head_bias", None if model.head.bias is None else model.head.bias.clone())
        self.sample_shape = model.sample_shape
        self._layout = torch.channels_last if model.channels_last else torch.contiguous_format
        self._head = model.head
        self._names = columns.names
        self._order = [HEAD_COLUMNS.index(one) if one in HEAD_COLUMNS else -1 for one in columns.names]
        self._readers = {one: columns.readers[one] for one in columns.names if one not in HEAD_COLUMNS}
        self._changes = {one: _traceable(one, detector.seed, model.sample_shape) for one in columns.copies}
        self.reading = head_reading(model.head)
        self.scoring = Scoring(estimator, detector.calibration, model.classes)
        self.fpr = detector.fpr
        self.eval().requires_grad_(False)
        with torch.no_grad():  # what the head computes once must not be computed inside a trace
            self(model.place(torch.full((2, *model.sample_shape), 0.5)))

    def forward(self, x: Tensor) -> Verdict:
        logits, read, distances = self._apart(x)
        return Verdict(logits, read[:, 2], *self.scoring.judged(distances))

    def scored(self, x: Tensor) -> tuple[Verdict, Tensor]:
        """The verdict, and the suspicion (n,) in nats, high = suspicious: what a ``Monitor`` watches."""
        logits, read, distances = self._apart(x)
        verdict = Verdict(logits, read[:, 2], *self.scoring.judged(distances))
        return verdict, self.scoring.suspicion(distances).squeeze(1)

    def in_plain_layout(self) -> "DetectorModule":
        """A copy whose memory layout is that of other runtimes, not the one that is fastest here."""
        found = copy.deepcopy(self)
        found.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        found._layout = torch.contiguous_format
        return found

    def logits(self, x: Tensor) -> Tensor:
        """The network's answer alone (n, k)."""
        return self._answer(x.to(self.head_weight.dtype).contiguous(memory_format=self._layout))[1]

    def _apart(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.to(self.head_weight.dtype).contiguous(memory_format=self._layout)
        features, logits = self._answer(x)
        read, predicted = self.reading(features, logits)
        columns = self._columns(x, features, logits, read, predicted)
        return logits, read, self.scoring.apart(columns, predicted)

    def _answer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = tensor_of(self.body(x))
        logits = nn.functional.linear(features, self.head_weight, self.head_bias)
        if logits.dtype in (torch.float16, torch.bfloat16):
            return features.float(), logits.float()
        return features, logits

    def _columns(
        self, x: Tensor, features: Tensor, logits: Tensor, read: Tensor, predicted: Tensor
    ) -> Tensor:
        """The detector's columns (n, p), in its own order."""
        if self._names == HEAD_COLUMNS:
            return read
        others: dict[str, Tensor] = {}
        if self._readers:
            look = self._look(x, features, logits, predicted)
            others = {one: fn(look).double() for one, fn in self._readers.items()}
        found = [
            read[:, place] if place >= 0 else others[one]
            for one, place in zip(self._names, self._order, strict=True)
        ]
        return torch.stack(found, dim=1).clamp(-1e30, 1e30)

    def _look(self, x: Tensor, features: Tensor, logits: Tensor, predicted: Tensor) -> Look:
        probe = Probe(x, x, predicted, None, predicted, features, logits, self._head)
        copies = {}
        for name, fn in self._changes.items():
            features, logits = self._answer(fn(x).contiguous(memory_format=self._layout))
            copies[name] = replace(probe, features=features, logits=logits)
        return Look(probe, copies)


def _traceable(name: str, seed: int, sample_shape: tuple[int, ...]) -> Change:
    """The change of that name with its noise drawn now: a trace would draw it anew, or not at all."""
    parts = [_drawn(part, seed, sample_shape) for part in name.split(JOIN)]

    def apply(x: Tensor) -> Tensor:
        for part in parts:
            x = part(x)
        return x

    return apply


def _drawn(part: str, seed: int, sample_shape: tuple[int, ...]) -> Change:
    fn = change(part, seed)
    if not part.startswith(NOISE):
        return fn
    grey = torch.full((1, *sample_shape), 0.5, dtype=torch.float64)
    noise = fn(grey) - grey

    def add(x: Tensor) -> Tensor:
        return (x + noise.to(x)).clamp(0, 1)

    return add
