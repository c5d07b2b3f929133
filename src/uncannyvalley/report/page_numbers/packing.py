"""Arrays of numbers as text that a browser turns back into typed arrays without a library.

The bytes of equal weight are put side by side before compression: signs and exponents of neighbouring floats are alike,
their last digits are not, and gzip finds the former only where they are not interrupted by the latter.
"""

import base64
import gzip
import math
from typing import Any

import numpy as np

from uncannyvalley.errors import InputError

Packed = dict[str, Any]
"""``{"dtype": …, "shape": […], "data": …}``; data is base64 of gzip of the shuffled little-endian bytes."""

TYPES = ("float32", "float64", "int32", "int16", "uint8")
"""Those that browsers have as typed arrays."""


def pack(values: np.ndarray) -> Packed:
    """``values`` of one of TYPES and any shape, in C order, as text; equal arrays give equal texts.

    Raises InputError for other types.
    """
    if values.dtype.name not in TYPES:
        raise InputError(f"arrays of {values.dtype.name} cannot be packed; turn them into {', '.join(TYPES)}")
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<")))
    shuffled = np.frombuffer(little.tobytes(), np.uint8).reshape(-1, values.dtype.itemsize).T.tobytes()
    # without a time in the header, the same numbers are the same page
    data = base64.b64encode(gzip.compress(shuffled, 9, mtime=0)).decode()
    return {"dtype": values.dtype.name, "shape": list(values.shape), "data": data}


def unpack(packed: Packed) -> np.ndarray:
    """The array that ``pack`` was given. Raises InputError where the text is damaged."""
    try:
        kind, shape = np.dtype(packed["dtype"]).newbyteorder("<"), tuple(packed["shape"])
        shuffled = np.frombuffer(gzip.decompress(base64.b64decode(packed["data"], validate=True)), np.uint8)
        plain = shuffled.reshape(kind.itemsize, math.prod(shape)).T.tobytes()
        return np.frombuffer(plain, kind).reshape(shape).astype(kind.newbyteorder("="))
    except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
        raise InputError(f"packed numbers cannot be read ({error}); write the page again") from error
