"""What the page needs to ask "what if the head had been softer?": kept logits, |φ|, and distances between the head's rows."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.report.page_numbers.packing import Packed, pack
from uncannyvalley.run.folder import RunFolder

BUDGET = 2_400_000
"""Characters that packed logits may take, so that a page of 1 000 examples stays below 6 MB."""

MOST_CLASSES = 256
"""With more, the table of distances alone would be larger than all other numbers of a page."""

TRIED = 32
"""Examples by which the size of all others is told."""

MARGIN = 0.98

TEMPERATURES = (0.1, 10.0)


def kept_replay(
    run: RunFolder, found: Phases, steps: np.ndarray, budget: int = BUDGET
) -> tuple[dict[str, Any] | None, str | None]:
    """The replay of a run and a remark about it; None where the run kept no logits, or has too many classes.

    logits      float32 (m, rows, k) of the first m examples that fit the budget, NaN where nothing was recorded
    log_pair    float64 (k, k): log(½|w_s − w_s'|²), −inf on the diagonal
    """
    table = found.trajectory.table
    if "logits" not in table.column_names:
        return None, None
    classes = table.schema.field("logits").type.list_size
    if classes > MOST_CLASSES:
        return (
            None,
            f"The temperature can be changed here for up to {MOST_CLASSES} classes; this run has {classes}: uncanny replay.",
        )
    logits = _fitting(found, steps, budget)
    count, all_of_them = logits["shape"][0], len(found)
    with np.errstate(divide="ignore"):
        norms = np.log(_column(found, "feature_norm", count, steps))
        pairs = np.log(run.head().squared_distances.numpy() / 2)
    replay = {
        "kind": "logits",
        "rows_of": pack(np.arange(count, dtype=np.int32)),
        "logits": logits,
        "log_feature_norm": pack(norms.astype(np.float32)),
        "log_pair": pack(pairs),
        "minimum": TEMPERATURES[0],
        "maximum": TEMPERATURES[1],
    }
    if count == all_of_them:
        return replay, None
    return (
        replay,
        f"Replayed on the first {count} of {all_of_them} examples, whose logits fit this page; uncanny replay reads all.",
    )


def _fitting(found: Phases, steps: np.ndarray, budget: int) -> Packed:
    """The logits of as many examples as fit; of one at least."""
    tried = kept_logits(found, min(TRIED, len(found)), steps)
    size = len(pack(tried)["data"]) / max(1, len(tried))
    logits = kept_logits(found, max(1, min(len(found), int(MARGIN * budget / size))), steps)
    packed = pack(logits)
    while len(packed["data"]) > budget and len(logits) > 1:
        logits = logits[: max(1, int(MARGIN * len(logits)))]
        packed = pack(logits)
    return packed


def kept_logits(found: Phases, count: int, steps: np.ndarray) -> np.ndarray:
    """float32 (count, steps, k) of the first examples; NaN where nothing was recorded."""
    ids = found.column("example")[:count]
    table = found.trajectory.table.select(["example", "restart", "step", "logits"])
    here = pc.and_(
        pc.is_in(table["example"], pa.array(ids, table["example"].type)),
        pc.and_(
            pc.is_in(table["step"], pa.array(steps, table["step"].type)),
            pc.equal(table["restart"], found.restart),
        ),
    )
    rows = table.filter(here)
    order = np.argsort(ids)
    example = order[np.searchsorted(ids, rows["example"].to_numpy(), sorter=order)]
    step = np.searchsorted(steps, rows["step"].to_numpy())
    classes = table.schema.field("logits").type.list_size
    filled = np.full((len(ids), len(steps), classes), np.nan, np.float32)
    filled[example, step] = pc.list_flatten(rows["logits"]).to_numpy().reshape(-1, classes)
    return filled


def _column(found: Phases, name: str, count: int, steps: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(np.isin(found.trajectory.examples, found.column("example")))[:count]
    return found.trajectory.column(name, found.restart)[np.ix_(rows, steps)]
