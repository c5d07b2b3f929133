"""Encoded images → bytes (channels, height, width)."""

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from uncannyvalley.errors import InputError

_GREY_MODES = ("1", "L", "I", "I;16", "F")


def decode_all(encoded: Iterable[tuple[str, bytes | None]]) -> np.ndarray:
    """(n, c, h, w) bytes from (where, encoded image) pairs; all must have one size."""
    return stack((where, _decode(where, image)) for where, image in encoded)


def stack(images: Iterable[tuple[str, np.ndarray]]) -> np.ndarray:
    """(n, c, h, w) from (where, image) pairs; InputError where there are none, or of several sizes."""
    found: list[np.ndarray] = []
    for where, one in images:
        if found and one.shape != found[0].shape:
            raise InputError(
                f"images must all have one size: {where} has {one.shape}, the first has {found[0].shape} "
                "(channels, height, width); resize them first"
            )
        found.append(one)
    if not found:
        raise InputError("there are no images")
    return np.stack(found)


def as_array(image: Image.Image) -> np.ndarray:
    """A decoded image as bytes (c, h, w): grey ones stay grey, all others become RGB."""
    grey = image.mode in _GREY_MODES
    array = np.asarray(image.convert("L" if grey else "RGB"))
    return array[None] if grey else array.transpose(2, 0, 1)


def _decode(where: str, image: bytes | None) -> np.ndarray:
    try:
        return as_array(Image.open(io.BytesIO(image or b"")))
    except Exception as error:  # Pillow raises many types on hostile bytes
        raise InputError(
            f"the image of {where} cannot be decoded ({type(error).__name__}); remove or replace it"
        ) from error
