"""How the state of a study looks in a terminal."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from uncannyvalley.cli.printing import console, print_json, print_table, shared_and_varying

if TYPE_CHECKING:
    from uncannyvalley.study.folder import Study

MOST_ROWS = 200
"""Up to so many runs are listed one by one."""

MOST_ERRORS = 10
"""Up to so many failed shards are named one by one."""


def show_study(study: "Study", json: bool) -> None:
    """Shards done and failed, and the rate, of each run and of all."""
    from uncannyvalley.study.progress import progress_of

    found = [progress_of(one) for one in study.runs]
    done, shards = sum(one.done for one in found), sum(one.shards for one in found)
    errors = {shard: error for one in found for shard, error in one.errors.items()}
    seconds, examples = sum(one.seconds for one in found), sum(one.examples for one in found)
    if json:
        runs = [asdict(one) | {"state": one.state, "rate": one.rate} for one in found]
        about = {"folder": str(study.path), "key": study.key, "complete": done == shards}
        print_json(
            {**about, "shards": shards, "done": done, "failed": errors, "seconds": seconds, "runs": runs}
        )
        return
    shared, varying = shared_and_varying([one.labels for one in found])
    rows = [
        [*(one.labels[axis] for axis in varying), one.state, f"{one.done}/{one.shards}", str(len(one.errors)), _rate(one.rate)]
        for one in found[:MOST_ROWS]
    ]  # fmt: skip
    title = "; ".join([f"Study {study.path}", *([shared] if shared else [])])
    print_table(title, [*varying, "state", "shards", "failed", "images/s"], rows, left=len(varying) + 1)
    if len(found) > MOST_ROWS:
        console.print(f"… and {len(found) - MOST_ROWS} more runs (--json lists all)")
    rate = _rate(examples / seconds if seconds else None)
    console.print(
        f"\n{len(found)} runs, {done} of {shards} shards done, {len(errors)} failed; {seconds:.0f} seconds of work, {rate} images/s of a worker.",
        soft_wrap=True,
    )
    print_errors(errors)


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.3g}"


def print_errors(errors: Mapping[str, str]) -> None:
    """Failed shards with what went wrong."""
    for shard, error in list(errors.items())[:MOST_ERRORS]:
        console.print(f"failed: {shard}: {error}", style="red", markup=False, soft_wrap=True)
    if len(errors) > MOST_ERRORS:
        console.print(f"… and {len(errors) - MOST_ERRORS} more failed shards", style="red")
