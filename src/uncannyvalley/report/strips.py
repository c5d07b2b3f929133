"""Strips of kept images: clean → ridge → flip → valley, and the perturbation amplified."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

ROLE_TITLES = {"clean": "clean", "ridge": "ridge", "flip": "flip", "valley": "valley"}
SIDE = 96
"""Pixels of the longer side as shown."""


@dataclass(frozen=True)
class Picture:
    """One image of a strip: a data URI, what it is, and the words beneath it."""

    uri: str
    title: str
    caption: str


@dataclass(frozen=True)
class Strip:
    """One example's pictures in walking order."""

    example: int
    heading: str
    pictures: tuple[Picture, ...]


def strip_of(
    example: int,
    heading: str,
    kept: Mapping[int, tuple[Sequence[str], np.ndarray]],
    captions: Mapping[int, str],
) -> Strip:
    """The marked iterates of one example, then the last mark's perturbation; captions by step."""
    marked = {role: step for step, (roles, _) in sorted(kept.items()) for role in roles}
    pictures = [
        Picture(_uri(kept[step][1]), f"{title}, step {step}", captions.get(step, ""))
        for role, title in ROLE_TITLES.items()
        if (step := marked.get(role)) is not None
    ]
    last = max((step for role, step in marked.items() if role != "clean"), default=0)
    if last and 0 in kept:
        moved = kept[last][1] - kept[0][1]
        largest = float(np.abs(moved).max()) or 1.0
        amplified = np.clip(0.5 + moved / (2 * largest), 0, 1)
        pictures.append(Picture(_uri(amplified), "perturbation", f"× {0.5 / largest:.0f}, step {last}"))
    return Strip(example, heading, tuple(pictures))


def _uri(pixels: np.ndarray) -> str:
    """(c, h, w) in [0, 1] as a PNG data URI, enlarged in whole pixels."""
    scaled = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    array = scaled[0] if scaled.shape[0] == 1 else scaled[:3].transpose(1, 2, 0)
    image = Image.fromarray(array)
    factor = max(1, SIDE // max(image.size))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((2 * SIDE, 2 * SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
