"""Attacked images of the study, made once and kept in files that are there whole or not at all.

A file holds the images that one attack made of 100 others. Its name ends in a digest of all that decided them (settings,
library, weights, images, labels, seed), so that a killed study goes on where it stood and a changed setting starts anew.
"""

import hashlib
import io
import json
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from detection.spsa import spsa
from uncannyvalley import adversaries, attacks
from uncannyvalley.adversaries import Adversary
from uncannyvalley.measures import resolve
from uncannyvalley.probe import Prober
from uncannyvalley.storing.files import write_bytes
from uncannyvalley.types import Attack
from uncannyvalley.walking import Recording, walk

BATCH = 100
"""Library attacks draw for a batch as a whole, so it is part of what decides an image."""

SEED = 0
LEVEL = 1 / 255

Made = tuple[Attack, int] | Adversary
"""A walk of ours with its steps, or an attack of a library."""


def _pgd(eps: int, steps: int) -> Callable[[], Made]:
    step_size = eps * LEVEL * {10: 1 / 4, 40: 1 / 10}[steps]
    return lambda: (attacks.pgd(eps=eps * LEVEL, step_size=step_size), steps)


def _early(step: float) -> Callable[[], Made]:
    return lambda: (attacks.early(eps=8 * LEVEL, step_size=step * LEVEL), 40)


def _fgsm(eps: int) -> Callable[[], Made]:
    return lambda: (attacks.fgsm(eps=eps * LEVEL), 1)


EPS = 8 * LEVEL

PLAN: dict[str, Callable[[], Made]] = {
    **{f"fgsm-{eps}": _fgsm(eps) for eps in (2, 4, 8, 16)},
    **{f"pgd-{eps}-{steps}": _pgd(eps, steps) for eps in (2, 4, 8, 16) for steps in (10, 40)},
    "early-fine": _early(0.5),
    "early-coarse": _early(2),
    "momentum": lambda: (attacks.momentum(eps=EPS, step_size=EPS / 10), 10),
    "deepfool": adversaries.deepfool,
    "apgd-ce": lambda: adversaries.apgd_ce(eps=EPS),
    "apgd-dlr": lambda: adversaries.apgd_dlr(eps=EPS),
    "autoattack": lambda: adversaries.autoattack(eps=EPS),
    "square": lambda: adversaries.square(eps=EPS, queries=1000),
    "cw": adversaries.cw,
    "fab": lambda: adversaries.fab(eps=EPS),
    "nes": lambda: adversaries.nes(eps=EPS),
    "spsa": lambda: spsa(eps=EPS),
    "hopskipjump": lambda: adversaries.hopskipjump(queries=1000),
}
"""The number of fgsm and pgd is eps in grey levels of 255; all others with a radius take 8. Cheap ones first: the last six take
minutes for 100 images on one core, the others seconds."""


def attacked(
    name: str, net: nn.Module, model: uv.SplitModel, x: Tensor, y: Tensor, folder: Path, weights: str
) -> Tensor:
    """What the attack ``name`` makes of images x with labels y; from the files in ``folder`` where they are there."""
    made = PLAN[name]()
    parts = []
    for first in range(0, len(x), BATCH):
        part, labels = x[first : first + BATCH], y[first : first + BATCH]
        path = folder / f"{name}-{first:03d}-{key_of(name, made, part, labels, weights)}.npy"
        if not path.exists():
            started = time.perf_counter()
            keep(path, _run(made, net, model, part, labels))
            print(f"made {path.name} in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        parts.append(torch.from_numpy(np.load(path)))
    return torch.cat(parts)


def key_of(name: str, made: Made, x: Tensor, y: Tensor, weights: str) -> str:
    """Digest of all that decides the images."""
    if isinstance(made, Adversary):
        about: dict[str, Any] = {"library": made.library, "settings": dict(made.settings)}
    else:
        about = {"steps": made[1], "settings": dict(made[0].settings)}
    about |= {"name": name, "seed": SEED, "weights": weights, "images": digest(x), "labels": y.tolist()}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=256)
def digest(x: Tensor) -> str:
    """SHA-256 of images as float32."""
    return hashlib.sha256(np.ascontiguousarray(x.float().numpy()).tobytes()).hexdigest()


def keep(path: Path, images: Tensor) -> None:
    """Write images as a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.save(content, images.float().contiguous().numpy())
    write_bytes(path, content.getvalue())


def _run(made: Made, net: nn.Module, model: uv.SplitModel, x: Tensor, y: Tensor) -> Tensor:
    if isinstance(made, Adversary):
        return made.run(net, x, y, SEED).images
    attack, steps = made
    prober = Prober(model, x, y, None, attack.objective)
    recording = Recording(steps, resolve(["margin"]), seed=SEED, every=steps)
    for _, probe in walk(prober, attack, recording, range(len(x))):
        last = probe.x.detach()
    return last.contiguous()
