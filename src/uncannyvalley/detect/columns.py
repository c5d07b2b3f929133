"""Named numbers of a look: what a detector may ask about an image.

``NAME`` is read at the image itself, ``NAME@COPY`` at a copy of it, ``NAME@COPY,COPY`` as the mean over copies,
``NAME@LAYER`` at an inner layer. NAME is a measure that needs no true label (``log_relative_sharpness``, ``log_gini``, …), or one of these:

    log_odds       z_t − logsumexp_{s≠t} z_s of the class t that is predicted for the image
    energy         logsumexp_s z_s (Liu et al. 2020, arXiv 2010.03759: its negative)
    log_norm       log |φ|
    grain, grain_across, grain_down   noise of colour in the image itself (``grain``)
    travel@COPY    log |φ(copy) − φ(image)|
    turn@COPY      log(1 − cos ∠(φ(copy), φ(image)))
    rise@COPY      log κ(copy) − log κ(image)
    drift@COPIES   log |mean φ(copies) − φ(image)|
    margin_rise@COPY       change of z_t − max_{s≠t} z_s
    softmax_change@COPIES  log of the largest L1 distance of softmax between the image and a copy (``responses``)
    odds_change@COPIES     largest mean change of z_s − z_t over the classes s ≠ t
    class_sharpness_S      log of the share of class S in κ: |φ|² p_S |w_S − w̄|²
    inner_sharpness@LAYER  log κ_layer − log Gini
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley import measures
from uncannyvalley.derivatives.layer_objective import CLASS_PROBES, EXACT_CLASSES, layer_sharpness
from uncannyvalley.detect.changes import is_change
from uncannyvalley.detect.grain import grain, grain_across, grain_down
from uncannyvalley.detect.looks import Look, is_walk
from uncannyvalley.detect.references import REFERENCES, Reference
from uncannyvalley.detect.responses import OF_COPIES, margin_rise
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.splitting import SplitModel
from uncannyvalley.types import Measure, PerExample, Probe, gap_to_others

Column = Callable[[Look], Tensor]

FLOOR = -1e3
"""Of logarithms that are −∞ where all features are 0: below any that float64 can show."""

_TINY = 1e-30
"""Below any distance that float32 features can show."""


def log_odds(probe: Probe) -> Float[Tensor, "n"]:
    """z_t − logsumexp_{s≠t} z_s, nats: log p_t/(1 − p_t) of the class predicted for the image."""
    return -gap_to_others(probe.logits, probe.y)


def energy(probe: Probe) -> Float[Tensor, "n"]:
    """logsumexp_s z_s, nats."""
    return probe.logits.double().logsumexp(dim=1)


def log_norm(probe: Probe) -> Float[Tensor, "n"]:
    """log |φ|."""
    return probe.log_feature_norm.clamp(min=FLOOR)


def travel(here: Probe, copy: Probe) -> Float[Tensor, "n"]:
    """log |φ(copy) − φ(image)|."""
    return (copy.features.double() - here.features.double()).square().sum(dim=1).clamp(min=_TINY).log() / 2


def turn(here: Probe, copy: Probe) -> Float[Tensor, "n"]:
    """log(1 − cos) of the angle between φ(copy) and φ(image), from the unit vectors' distance: nothing cancels."""
    units = [
        one.features.double() / one.features.double().norm(dim=1, keepdim=True).clamp(min=_TINY)
        for one in (here, copy)
    ]
    return ((units[0] - units[1]).square().sum(dim=1) / 2).clamp(min=_TINY).log()


def rise(here: Probe, copy: Probe) -> Float[Tensor, "n"]:
    """log κ(copy) − log κ(image)."""
    sharpness = measures.available()["log_relative_sharpness"]
    return sharpness(copy).clamp(min=FLOOR) - sharpness(here).clamp(min=FLOOR)


def class_sharpness(which: int) -> PerExample:
    """log of |φ|² p_s |w_s − w̄|² for the class s: these sum to κ."""

    def fn(probe: Probe) -> Tensor:
        shares = probe.logits.double().log_softmax(dim=1)
        mean = probe.head.combine(shares.exp())
        offset = probe.head.weight[which].double() - mean
        return (
            2 * probe.log_feature_norm + shares[:, which] + offset.square().sum(dim=1).clamp(min=_TINY).log()
        )

    return fn


_OF_PROBE: dict[str, PerExample] = {"log_odds": log_odds, "energy": energy, "log_norm": log_norm}
_OF_IMAGE: dict[str, PerExample] = {"grain": grain, "grain_across": grain_across, "grain_down": grain_down}
_OF_PAIR: dict[str, Callable[[Probe, Probe], Tensor]] = {
    "travel": travel,
    "turn": turn,
    "rise": rise,
    "margin_rise": margin_rise,
}
_OF_CLASS = re.compile("class_sharpness_([0-9]+)")
_OF_LAYER = "inner_sharpness"
_OF_PAST = ("distance_linf", "distance_l2", "log_third_order_remainder")
"""Measures that compare with a clean image or an earlier iterate, which a detector does not have."""


@dataclass(frozen=True)
class Columns:
    """Columns by name, and what it takes to read them.

    copies  the copies of an image that they are read at
    references  columns that must be fitted to clean features first
    layers  the inner layers; each costs a forward and ``classes`` − 1 backwards (16 beyond 20 classes)
    """

    names: tuple[str, ...]
    copies: tuple[str, ...]
    layers: tuple[str, ...]
    references: Mapping[str, Reference]
    readers: Mapping[str, Column]

    def read(self, look: Look) -> Float[Tensor, "n p"]:
        """All columns of a look, in float64, within ±1e30.

        Raises InputError where one is NaN.
        """
        found = torch.stack([self.readers[name](look).double() for name in self.names], dim=1)
        if bool(found.isnan().any()):
            bad = [name for name, one in zip(self.names, found.T, strict=True) if bool(one.isnan().any())]
            rows = int(found.isnan().any(dim=1).sum())
            raise InputError(
                f"{', '.join(bad)} is NaN for {rows} of {len(found)} images; check the network's features and logits there"
            )
        return found.clamp(-1e30, 1e30)


def make_columns(names: Sequence[str], model: SplitModel) -> Columns:
    """The columns of those names for a network.

    Raises InputError for unknown names, and for none at all.
    """
    if not names:
        raise InputError(f"a detector needs at least one column; known: {', '.join(known_columns())}")
    copies: dict[str, None] = {}
    layers: dict[str, None] = {}
    references: dict[str, Reference] = {}
    readers: dict[str, Column] = {}
    for name in names:
        what, at, where = name.partition("@")
        if name in REFERENCES:
            references[name] = REFERENCES[name]()
            readers[name] = _of_reference(references[name])
        elif what == _OF_LAYER and where:
            layers[where] = None
            readers[name] = _at_layer(model, where)
        elif at and all(is_change(one) or is_walk(one) for one in where.split(",")):
            copies |= dict.fromkeys(where.split(","))
            readers[name] = _at_copies(what, where.split(","), model.classes)
        elif not at and what not in _OF_PAIR:
            readers[name] = _at_image(what, model.classes)
        else:
            raise unknown_name("column of a detector", name, known_columns())
    return Columns(tuple(names), tuple(copies), tuple(layers), references, readers)


def backwards_of_layer(classes: int) -> int:
    """Backward passes that the sharpness of one inner layer takes."""
    return classes - 1 if classes <= EXACT_CLASSES else CLASS_PROBES


def known_columns() -> tuple[str, ...]:
    """Names of columns; COPY, LAYER and CLASS stand for any."""
    pairs = [f"{name}@COPY" for name in (*_OF_PAIR, *OF_COPIES)]
    return (
        *_OF_PROBE,
        *_OF_IMAGE,
        *REFERENCES,
        *_readable(),
        *pairs,
        f"{_OF_LAYER}@LAYER",
        "class_sharpness_CLASS",
    )


def _readable() -> dict[str, Measure]:
    """Measures of the image alone."""
    return {name: one for name, one in measures.available().items() if name not in _OF_PAST and not one.needs}


def _at_image(what: str, classes: int) -> Column:
    fn = _of_probe(what, classes)
    return lambda look: fn(look.probe)


def _of_reference(reference: Reference) -> Column:
    return lambda look: reference(look.probe)


def _at_copies(what: str, where: Sequence[str], classes: int) -> Column:
    if what in _OF_PAIR:
        pair = _OF_PAIR[what]
        return lambda look: _mean([pair(look.probe, look.copies[one]) for one in where])
    if what in OF_COPIES:
        group = OF_COPIES[what]
        return lambda look: group(look.probe, [look.copies[one] for one in where])
    fn = _of_probe(what, classes)
    return lambda look: _mean([fn(look.copies[one]) for one in where])


def _mean(values: list[Tensor]) -> Float[Tensor, "n"]:
    return torch.stack(values).mean(dim=0)


def _at_layer(model: SplitModel, layer: str) -> Column:
    """log κ_layer − log Gini: the sharpness of an inner layer that confidence does not explain."""
    sharpness = layer_sharpness(model, layer)
    return lambda look: sharpness(look.probe) - look.probe.softmax.log_gini


def _of_probe(what: str, classes: int) -> PerExample:
    if what in _OF_PROBE:
        return _OF_PROBE[what]
    if what in _OF_IMAGE:
        return _OF_IMAGE[what]
    which = _OF_CLASS.fullmatch(what)
    if which and int(which[1]) < classes:
        return class_sharpness(int(which[1]))
    readable = _readable()
    if what not in readable:
        raise unknown_name("column of a detector", what, known_columns())
    return readable[what]
