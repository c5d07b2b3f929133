"""A probe made of kept numbers: measures read it as they read one of a live network, as far as it goes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.errors import first_line
from uncannyvalley.head import Head
from uncannyvalley.replaying.kept_walk import FEATURES, LOGITS, NORM, kept_column
from uncannyvalley.types import Measure, Probe

ABSENT = "meta"
"""Device of tensors that have a shape and no values: what is computed from them has none either."""


@dataclass(frozen=True)
class StoredProbe(Probe):
    """Rows of a walk as they were kept; ``x`` and ``clean``, and without kept features φ too, have no values.

    stored_log_norm  log |φ|, from the recorded ``feature_norm``: all that a measure of the head needs of φ beside logits
    """

    stored_log_norm: Float[Tensor, "n"] | None = None

    @cached_property
    def log_feature_norm(self) -> Float[Tensor, "n"]:
        """log |φ| as recorded."""
        assert self.stored_log_norm is not None
        return self.stored_log_norm


def stored_probe(block: pa.Table, head: Head, temperature: float, *, apply_head: bool) -> StoredProbe:
    """The probe of some rows under ``head`` at ``temperature``: z/T, or W φ/T + b/T where the head is to be applied.

    ``head`` is the one before its division by T. Logits are float64, except at temperature 1 under the recorded head, where they
    and W stay the numbers of the recording.
    """
    count = block.num_rows
    features = torch.empty(count, head.weight.shape[1], device=ABSENT)
    if FEATURES in block.column_names:
        features = torch.from_numpy(kept_column(block, FEATURES).copy())
    as_recorded = temperature == 1 and not apply_head
    used = head if as_recorded else at_temperature(head, temperature)
    if apply_head:
        logits = used.logits(features.double())
    else:
        logits = torch.from_numpy(kept_column(block, LOGITS).copy())
        logits = logits if as_recorded else logits.double() / temperature
    with np.errstate(divide="ignore"):  # |φ| = 0
        log_norm = torch.from_numpy(np.log(block[NORM].to_numpy()))
    return StoredProbe(
        x=torch.empty(count, 1, device=ABSENT), clean=torch.empty(count, 1, device=ABSENT),
        y=_classes(block, "label"), target=_classes(block, "target") if "target" in block.column_names else None,
        owner=torch.arange(count), features=features, logits=logits, head=used, stored_log_norm=log_norm,
    )  # fmt: skip


def _classes(block: pa.Table, name: str) -> Tensor:
    return torch.from_numpy(block[name].to_numpy().astype(np.int64))


def at_temperature(head: Head, temperature: float) -> Head:
    """The head W/T, b/T, in float64."""
    bias = None if head.bias is None else head.bias.double() / temperature
    return Head(head.weight.double() / temperature, bias)


def reason_against(measure: Measure, probe: StoredProbe) -> str | None:
    """Why a measure cannot be read off kept numbers, None if it can: it is tried on ``probe``.

    Formulas of the package read logits, label, |φ| and W. One that a user registered may read images or features, which have no
    values here: then neither has its result, or torch refuses.
    """
    if measure.needs:
        return "needs a gradient through the network"
    try:
        with torch.no_grad():
            values = measure(probe)
    except RuntimeError as error:
        return f"cannot be read off what was kept ({first_line(error)})"
    return "reads what was not kept" if values.is_meta else None
