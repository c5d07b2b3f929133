"""Attacks of other libraries, by name, watched from the clean images to what they return."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley.adversaries import Adversary
from uncannyvalley.checks import check_count, check_ids
from uncannyvalley.matching import Matcher
from uncannyvalley.observing import Observation, chosen_measures
from uncannyvalley.query_rows import RowObserver
from uncannyvalley.recording import choose_batch_size
from uncannyvalley.splitting import SplitModel, split_for
from uncannyvalley.trajectory import Trajectory, last_rows
from uncannyvalley.types import Measure
from uncannyvalley.watched_model import watched


class Watched(NamedTuple):
    """One batch under a library's attack.

    table   rows by example and query; the first is the clean image, the last what the library returned
    counts  queries by fate; fooled: the library's own count (−1 where it makes none); fooled_seen: final rows that
            are misclassified
    images  (n, …), what the library returned
    """

    table: pa.Table
    counts: dict[str, int]
    images: Float[Tensor, "n ..."]


def watch_batch(
    model: SplitModel,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    ids: Sequence[int],
    adversary: Adversary,
    measures: tuple[Measure, ...],
    seed: int,
    observer: RowObserver | None = None,
) -> Watched:
    """Run ``adversary`` on one batch, on the prepared copy of the network, with every query recorded.

    Its random numbers are keyed by the seed and the batch's first id: libraries draw for a batch as a whole.
    """
    x, y = model.place(x), y.to(model.device)
    # minimum-norm parts of an attack may leave its ball: rows outside are judged by distance
    matcher = Matcher(x, adversary.eps, adversary.norm, strict=False)
    with Observation(model, x, y, ids, measures, matcher, about_adversary(adversary), observer) as walk:
        walk.model = watched(model, model, x.shape[1:], walk.see, prepared=True)
        walk.ask(x)
        batch_seed = int(np.random.SeedSequence([seed, ids[0]]).generate_state(1)[0])
        images, fooled = adversary.run(walk.model, x, y, batch_seed)
        walk.ask(images)
    found = walk.trajectory
    adversarial = found.column("adversarial")
    seen = adversarial[np.arange(len(found)), last_rows(adversarial)]
    counts = walk.fates | {
        "fooled": -1 if fooled is None else int(fooled.sum()),
        "fooled_seen": int(seen.sum()),
    }
    return Watched(found.table, counts, images.cpu())


def about_adversary(adversary: Adversary) -> dict[str, Any]:
    """What decided a watched walk."""
    return {
        "attack": adversary.name,
        "settings": dict(adversary.settings),
        "library": adversary.library,
        "kind": adversary.kind,
    }


def watch(
    net: nn.Module | SplitModel,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    adversary: Adversary,
    *,
    measures: Sequence[str | Measure] | None = None,
    seed: int = 0,
    ids: Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trajectory:
    """Run an attack of another library, made in ``uncannyvalley.adversaries``, and record every query.

    The first row of each example is the clean image, the last one the image that the library returned; between them
    lie its queries as they came (``Trajectory.accepted`` shows the best so far). ``about["queries"]`` counts rows by
    fate and, as ``fooled`` and ``fooled_seen``, the library's own successes and those seen. Other arguments as in ``record``, but
    the batch size decides numbers: libraries draw for a batch as a whole. Raises InputError for input that cannot be used.
    """
    model, x, y = split_for(net, x, y)
    ids = check_ids(ids, len(x))
    check_count("seed", seed, 0)
    chosen = chosen_measures(model, measures)
    size = choose_batch_size(model, batch_size)
    batches = []
    for rows in (slice(first, first + size) for first in range(0, len(x), size)):
        batches.append(watch_batch(model, x[rows], y[rows], ids[rows], adversary, chosen, seed))
        if progress is not None:
            progress(len(batches[-1].images))
    table = pa.concat_tables([one.table for one in batches]).unify_dictionaries()
    return Trajectory(table, tuple(ids)).described(queries=add_counts([one.counts for one in batches]))


def add_counts(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Counts of batches, added up; −1 where one of them has none."""
    return {
        key: -1 if any(one[key] < 0 for one in counts) else sum(one[key] for one in counts)
        for key in counts[0]
    }
