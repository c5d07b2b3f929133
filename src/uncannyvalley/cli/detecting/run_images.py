"""Attacked images that recorded runs kept, beside the clean images that they were walked from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from uncannyvalley.run.folder import RunFolder

SAME = 1e-6
"""Largest difference between a clean image and what a run kept of it: both are float32 of the same bytes."""


@dataclass(frozen=True)
class RunImages:
    """Rows of the data that all runs kept, title → attacked images (rows, …), title → norm and radius, and remarks."""

    rows: list[int]
    attacks: "dict[str, Tensor]"
    radii: dict[str, tuple[str, float]]
    notes: list[str]


def run_images(folders: Sequence[str], x: "Tensor", first: int, weights: str) -> RunImages:
    """The last kept iterate of each image, of runs that were recorded on the data whose rows from ``first`` on are ``x``.

    Runs keep marked iterates: where the walk's end was none of them, the last marked one stands for it, and a note says
    how often, and another where the run attacked a network of other ``weights``. Raises InputError for runs on other data,
    and for runs that kept none of these images.
    """
    import numpy as np
    import torch

    from uncannyvalley.run.folder import open_run

    ends: dict[str, dict[int, np.ndarray]] = {}
    balls: dict[str, tuple[str, float]] = {}
    notes = []
    for folder in folders:
        run = open_run(folder)
        found, walked_out = _last_kept(run)
        found = {row - first: image for row, image in found.items() if first <= row < first + len(x)}
        if not found:
            raise InputError(
                f"{folder} kept images of none of the rows {first} to {first + len(x) - 1}; record with a larger "
                "--keep-images, or choose other rows with --skip and --limit"
            )
        _check_same(run, x, first)
        title = f"{run.plan.attack.name} ({run.path.name})"
        if title in ends:
            raise InputError(
                f"two runs are called {title}; give each run once, in folders of different names"
            )
        ends[title] = found
        settings = run.plan.attack.settings
        if settings.get("eps"):
            balls[title] = (str(settings["norm"]), float(settings["eps"]))
        if run.plan.model.fingerprint != weights:
            notes.append(f"{title} was recorded on another network: here it is a transferred attack")
        notes.append(
            f"{title}: {walked_out} of its kept images are the ends of their walks, the others the last marked iterate"
        )
    rows = sorted(set.intersection(*(set(one) for one in ends.values())))
    if not rows:
        raise InputError("the runs have no kept image in common; record them on the same images")
    if len(rows) < len(x):
        notes.append(f"evaluated on {len(rows)} of {len(x)} images: those that every run kept")
    attacks = {
        title: torch.from_numpy(np.stack([one[row] for row in rows])).float() for title, one in ends.items()
    }
    return RunImages(rows, attacks, balls, notes)


def _last_kept(run: "RunFolder") -> "tuple[dict[int, np.ndarray], int]":
    """Example → its last kept image, and for how many that is the end of the walk."""
    import numpy as np

    from uncannyvalley.trajectory import last_rows

    kept = run.images()
    trajectory = run.trajectory
    steps = last_rows(trajectory.column("predicted"))
    last = dict(zip(trajectory.examples.tolist(), np.asarray(steps).tolist(), strict=True))
    found: dict[int, np.ndarray] = {}
    walked_out = 0
    for example, iterates in kept.items():
        step = max(iterates)
        found[example] = iterates[step][1]
        walked_out += step == last.get(example)
    return found, walked_out


def _check_same(run: "RunFolder", x: "Tensor", first: int) -> None:
    import numpy as np

    for example, iterates in run.images().items():
        if not first <= example < first + len(x) or 0 not in iterates:
            continue
        clean, mine = iterates[0][1], x[example - first].numpy()
        if clean.shape != mine.shape or np.abs(clean - mine).max() > SAME:
            raise InputError(
                f"{run.path} was recorded on other images ({run.plan.data.spec}) than --data: its clean example {example} differs "
                "from that row; give the same data"
            )
