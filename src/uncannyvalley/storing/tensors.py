"""Tensors in one stamped safetensors file, with a text that says what they are."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from uncannyvalley.errors import InputError
from uncannyvalley.storing.files import write_bytes
from uncannyvalley.storing.places import Place
from uncannyvalley.storing.stamp import BLANK, is_intact, stamp

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "uncannyvalley"
"""The one key of the file's metadata: several would be written in an order of their own each time."""


def write_tensors(place: Place, tensors: Mapping[str, "Tensor"], about: Mapping[str, Any]) -> None:
    """One stamped file, whole or not there; ``about`` is anything that JSON can hold.

    The same tensors and ``about`` are the same bytes. CannotWrite where the disk refuses: an old file is then kept.
    """
    from safetensors.torch import save

    # copies of their own: the format takes neither shared nor strided memory
    own = {name: one.detach().cpu().clone().contiguous() for name, one in tensors.items()}
    write_bytes(place, stamp(save(own, {_KEY: json.dumps({**about, "stamp": BLANK})})))


def read_tensors(
    place: Place, *, format: int, damaged: str, outdated: str
) -> tuple[dict[str, Any], dict[str, "Tensor"]]:
    """``about`` and the tensors of a file, proved to be what was written.

    Raises InputError for a file that cannot be read, for one whose stamp does not fit (``damaged`` says what that means
    and what to do), and for one whose ``about["format"]`` is not ``format`` (``outdated`` says what to do).
    """
    from safetensors.torch import load

    try:
        content = place.read_bytes()
    except OSError as error:
        raise InputError(f"{place} cannot be read ({error.strerror or error})") from error
    if not is_intact(content):
        raise InputError(f"{place} {damaged}")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about: dict[str, Any] = json.loads(header["__metadata__"][_KEY])
    if about["format"] != format:
        raise InputError(f"{place} has format {about['format']}, this version reads {format}; {outdated}")
    return about, load(content)
