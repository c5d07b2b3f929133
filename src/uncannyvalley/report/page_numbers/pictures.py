"""Kept iterates as small pictures: the pixels as they are, or reduced where they are many."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from uncannyvalley.report.page_numbers.plain import finite_or_none

SIDE = 96
"""Longer side of a picture. Smaller images keep their pixels, and the page enlarges them; larger ones are reduced."""

BUDGET = 2_000_000
"""Characters that pictures may take: marked steps come before those between them."""

QUALITY = 88
"""Of reduced pictures, as JPEG: they are no longer the pixels of the walk."""

Steps = Mapping[int, tuple[Sequence[str], np.ndarray]]
"""Step → (roles, pixels (c, h, w) in [0, 1]) of one example."""

Kept = Mapping[int, Steps]
"""Example → its steps, as ``RunFolder.images`` reads them."""


def picture_numbers(kept: Kept, budget: int = BUDGET) -> dict[str, Any] | None:
    """The pictures of a run; None where no image was kept.

    items          every kept step of an example with its roles (clean, ridge, flip, valley; none in between)
    perturbations  what the last mark of an example differs by from its clean image, times ``factor``, around grey
    left_out       kept steps for which the budget, in characters, has no room
    """
    shape = next((pixels.shape for steps in kept.values() for _, pixels in steps.values()), None)
    if shape is None:
        return None
    pictures: dict[str, list[dict[str, Any]]] = {"items": [], "perturbations": []}
    room, left_out = budget, 0
    for part, picture in _in_order_of_need(kept):
        room -= len(picture["uri"])
        if room < 0:
            left_out += 1
        else:
            pictures[part].append(picture)
    pictures["items"].sort(key=lambda one: (one["example"], one["step"]))
    _, height, width = shape
    return {
        "width": width,
        "height": height,
        "reduced": max(width, height) > SIDE,
        **pictures,
        "left_out": left_out,
    }


def _in_order_of_need(kept: Kept) -> Iterator[tuple[str, dict[str, Any]]]:
    """The marked steps of each example with its perturbation, then all steps between them."""
    for example, steps in kept.items():
        for step, (roles, pixels) in sorted(steps.items()):
            if roles:
                yield "items", _item(example, step, roles, pixels)
        if (moved := _perturbation(example, steps)) is not None:
            yield "perturbations", moved
    for example, steps in kept.items():
        for step, (roles, pixels) in sorted(steps.items()):
            if not roles:
                yield "items", _item(example, step, roles, pixels)


def _item(example: int, step: int, roles: Sequence[str], pixels: np.ndarray) -> dict[str, Any]:
    return {"example": example, "step": step, "roles": list(roles), "uri": picture_uri(pixels)}


def _perturbation(example: int, steps: Steps) -> dict[str, Any] | None:
    found = amplified(steps)
    if found is None:
        return None
    step, factor, pixels = found
    return {"example": example, "step": step, "factor": finite_or_none(factor), "uri": picture_uri(pixels)}


def amplified(steps: Steps) -> tuple[int, float, np.ndarray] | None:
    """What the last marked step of an example differs by from its clean image: (step, factor, 0.5 + factor · difference).

    The factor makes the largest change black or white. None where the clean image or a mark beyond it was not kept.
    """
    last = max((step for step, (roles, _) in steps.items() if set(roles) - {"clean"}), default=0)
    if not last or 0 not in steps:
        return None
    moved = steps[last][1] - steps[0][1]
    factor = 0.5 / (float(np.abs(moved).max(initial=0.0)) or 1.0)
    return last, factor, 0.5 + factor * moved


def picture_uri(pixels: np.ndarray) -> str:
    """(c, h, w) in [0, 1] as a data URI: PNG of the pixels, or JPEG of SIDE where they are reduced."""
    clean = np.nan_to_num(np.clip(pixels, 0, 1), nan=0.5)
    levels = (clean * 255).round().astype(np.uint8)
    grey = levels.shape[0] < 3
    image = Image.fromarray(levels[0] if grey else levels[:3].transpose(1, 2, 0))
    buffer = io.BytesIO()
    if max(image.size) <= SIDE:
        image.save(buffer, format="PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    image.save(buffer, format="JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
