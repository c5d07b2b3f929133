"""What the study reads of one trained network: accuracies, and where its walk has a ridge and a valley."""

import hashlib
import io
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

import uncannyvalley as uv
from training.walks import SEED, digest, pgd_walk
from uncannyvalley import adversaries, zoo
from uncannyvalley.analysis.phase_table import phases
from uncannyvalley.analysis.summary import RIDGE
from uncannyvalley.storing.files import write_bytes

LONG = {"digits": (0.5, 50), "mnist": (0.5, 50), "cifar10": (32 / 255, 64)}
"""Radius and steps of the walk whose distances are read: steps of radius/steps, so that no image stops short of it."""

RADII = {"digits": (0.1, 0.2, 0.4), "mnist": (0.1, 0.2, 0.4), "cifar10": (2 / 255, 8 / 255, 32 / 255)}
"""Radii of the shorter walks, 20 steps of 2.5 eps/20."""

ATTACK_STEPS = 20
AUTOATTACKED = 200


@dataclass(frozen=True)
class Walked:
    """The long walk of the images that were right at first, one row an image; infinite where a phase is not reached.

    flip, ridge, valley  Linf distance at the first wrong label, at the largest log κ (infinite while log κ still climbs at the
                         end), and at the first log κ below the clean one after the flip
    has_ridge            κ rises tenfold and then falls tenfold
    shares               of log κ, end − clean: gini, norm, geometry
    relative             log κ − log κ(0) along the walk, (images, rows); ``distances`` are those of its rows
    """

    flip: np.ndarray
    ridge: np.ndarray
    valley: np.ndarray
    has_ridge: np.ndarray
    height: np.ndarray
    depth: np.ndarray
    shares: Mapping[str, np.ndarray]
    relative: np.ndarray
    distances: np.ndarray
    image: np.ndarray


@dataclass(frozen=True)
class Judged:
    """One network. ``clean``, ``pgd`` and ``autoattack`` say of each image whether it is (still) right; None: not run."""

    name: str
    kind: str
    dataset: str
    seed: int
    clean: np.ndarray
    pgd: np.ndarray
    autoattack: np.ndarray | None
    walked: Walked
    depths: Mapping[float, np.ndarray]


def read_walk(trajectory: uv.Trajectory) -> Walked:
    """The phases of a walk in distances, not steps."""
    right = trajectory.column("adversarial")[:, 0] == 0
    table = phases(trajectory)
    distance, kappa = (
        trajectory.column("distance_linf")[right],
        trajectory.column("log_relative_sharpness")[right],
    )

    def at(step: np.ndarray) -> np.ndarray:
        known = np.isfinite(step)
        found = np.full(len(step), np.inf)
        found[known] = distance[np.nonzero(known)[0], step[known].astype(int)]
        return found

    ridge_step = table.ridge_step[right]
    climbing = ridge_step == kappa.shape[1] - 1
    return Walked(
        flip=at(table.flip_step[right]),
        ridge=np.where(climbing, np.inf, at(ridge_step)),
        valley=at(table.valley_step[right]),
        has_ridge=(table.ridge_height[right] >= RIDGE) & (table.descent[right] <= -RIDGE),
        height=table.ridge_height[right],
        depth=table.depth[right],
        shares={one: table.column(f"change_{one}")[right] for one in ("gini", "norm", "geometry")},
        relative=kappa - kappa[:, :1],
        distances=np.median(distance, axis=0),
        image=np.nonzero(right)[0],
    )


def judge(
    name: str, kind: str, dataset: str, seed: int, net: nn.Module, x: Tensor, y: Tensor, eps: float, folder: Path,
    *, autoattack: bool,
) -> Judged:  # fmt: skip
    """Everything about one network, from the cache where it was done before; AutoAttack only if asked or done."""
    radius, steps = LONG[dataset]
    long = pgd_walk(net, x, y, radius, steps, folder, step_size=radius / steps)
    attacked = pgd_walk(net, x, y, eps, ATTACK_STEPS, folder, random_start=True)
    short = {one: pgd_walk(net, x, y, one, ATTACK_STEPS, folder) for one in RADII[dataset]}
    right = long.column("adversarial")[:, 0] == 0
    return Judged(
        name=name,
        kind=kind,
        dataset=dataset,
        seed=seed,
        clean=right,
        pgd=~(attacked.column("adversarial") == 1).any(axis=1),
        autoattack=withstood(net, x[:AUTOATTACKED], y[:AUTOATTACKED], eps, folder, run=autoattack),
        walked=read_walk(long),
        depths={radius: _depth(walk)[right] for radius, walk in short.items()},
    )


def _depth(walk: uv.Trajectory) -> np.ndarray:
    kappa = walk.column("log_relative_sharpness")
    return kappa[:, 0] - kappa[:, -1]


def withstood(
    net: nn.Module, x: Tensor, y: Tensor, eps: float, folder: Path, *, run: bool
) -> np.ndarray | None:
    """Which images the standard AutoAttack leaves right, from its file; None where that is not there and not to be made."""
    attack = adversaries.autoattack("linf", eps=eps)
    about = {
        "library": attack.library, "settings": dict(attack.settings), "seed": SEED, "weights": zoo.fingerprint(net),
        "images": digest(x), "labels": y.tolist(),
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"autoattack-{eps:.4f}-{key}.npy"
    if not path.exists():
        if not run:
            return None
        started = time.perf_counter()
        fooled = attack.run(net, x, y, SEED).fooled
        assert fooled is not None  # this library says of each image whether it is fooled
        content = io.BytesIO()
        np.save(content, ~fooled.numpy())
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content.getvalue())
        print(f"made {path} in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    found: np.ndarray = np.load(path)
    return found
