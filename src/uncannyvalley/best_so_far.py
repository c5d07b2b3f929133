"""The best row so far of each example: the walk of an attack that rejects most of what it tries."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uncannyvalley.errors import unknown_name

CRITERIA = ("margin", "distance_linf", "distance_l2")


def best_so_far(table: pa.Table, by: str) -> pa.Table:
    """``table``, sorted by example, restart and step, with each row replaced by the best of its walk so far.

    margin     the row of the lowest margin: what a score-based attack, or one with restarts, has accepted
    distance_… the adversarial row nearest to the clean image; the first row until there is one: what an attack
               for the smallest perturbation has accepted

    Its step stays the number of the query at which it was the best. The first of equal rows is kept.
    """
    if by not in CRITERIA or by not in table.column_names:
        raise unknown_name("criterion", by, [one for one in CRITERIA if one in table.column_names])
    table = table.sort_by([("example", "ascending"), ("restart", "ascending"), ("step", "ascending")])
    score = table[by].to_numpy().astype(float)
    if by != "margin":
        score = np.where(table["adversarial"].to_numpy(), score, np.inf)
    score = np.where(np.isnan(score), np.inf, score)
    example, restart = table["example"].to_numpy(), table["restart"].to_numpy()
    starts = np.flatnonzero(np.r_[True, (np.diff(example) != 0) | (np.diff(restart) != 0)])
    best = np.concatenate(
        [
            first + _running_argmin(walk)
            for first, walk in zip(starts, np.split(score, starts[1:]), strict=True)
        ]
    )
    chosen = table.take(pa.array(best))
    place = table.schema.get_field_index("step")
    step = pc.cast(table["step"], table.schema.field("step").type)
    return chosen.set_column(place, table.schema.field("step"), step)


def _running_argmin(values: np.ndarray) -> np.ndarray:
    """Position of the first smallest value among those up to each."""
    lowest_before = np.minimum.accumulate(np.r_[np.inf, values[:-1]])
    improves = values < lowest_before
    return np.maximum.accumulate(np.where(improves, np.arange(len(values)), 0))
