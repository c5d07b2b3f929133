"""Where a run lies: a folder of this machine, or a URL such as ``s3://bucket/run`` that fsspec knows."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from uncannyvalley.errors import InputError, first_line


@runtime_checkable
class Place(Protocol):
    """What pathlib's paths and those of universal_pathlib share."""

    @property
    def name(self) -> str: ...
    @property
    def parent(self) -> Any: ...
    def __truediv__(self, part: str) -> Any: ...
    def exists(self) -> bool: ...
    def is_dir(self) -> bool: ...
    def is_file(self) -> bool: ...
    def iterdir(self) -> Iterator[Any]: ...
    def read_bytes(self) -> bytes: ...
    def write_bytes(self, data: bytes) -> int: ...
    def unlink(self) -> None: ...


def place_of(text: "str | Place") -> Place:
    """A path, or the place behind a URL (extra remote).

    Raises InputError for a URL whose protocol fsspec does not know or cannot load here.
    """
    if not isinstance(text, str):
        return text
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath
    except ImportError as error:
        raise InputError(
            f'{text} is a URL, which takes universal_pathlib: pip install "uncannyvalley[remote]"'
        ) from error
    try:
        place = UPath(text)
        _ = place.fs
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"{text} cannot be opened ({first_line(error)})") from error
    return place


def is_local(place: Place) -> bool:
    """Whether files are renamed here, and folders can be locked: object stores have neither."""
    return isinstance(place, Path)


def below(place: Place, root: Place) -> str:
    """Where ``place`` lies below ``root``, with slashes; "" where it is the same."""
    return str(place)[len(str(root)) :].strip("/")


def presence(folder: Place) -> Callable[[str], bool]:
    """Whether a name is in ``folder``: asked millions of times, for which path objects are slow."""
    if is_local(folder):
        start = f"{folder}{os.sep}"
        return lambda name: os.path.exists(start + name)
    return lambda name: (folder / name).exists()
