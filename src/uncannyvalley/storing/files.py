"""Files that are there whole or not at all."""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from uncannyvalley.errors import InputError
from uncannyvalley.storing.places import Place, is_local

SCRATCH_ENDING = ".tmp"

WHOLE = "whole"
"""Who writes where a run is not written in parts."""


class CannotWrite(InputError):
    """A full disk, missing rights and other refusals: what comes next would be refused as well."""


def write_whole(place: Place, write: Callable[[Path], None], writer: str = WHOLE) -> None:
    """``write`` into a scratch file, flush it to the disk, then rename it into place; object stores take it in one put.

    A process that dies leaves the old file, or none; plain writes in place are lost by most kills. Scratch names
    are of one process and one ``writer``, so that a writer who begins anew can tell what it left behind.
    """
    try:
        if not is_local(place):
            _put(place, write)
            return
        scratch = Path(str(place.parent)) / f"{place.name}.{os.getpid()}.{writer}{SCRATCH_ENDING}"
        try:
            write(scratch)
            _sync(scratch)
            os.replace(scratch, str(place))
            _sync(scratch.parent)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(place, error) from error


def _put(place: Place, write: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / place.name
        write(scratch)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(scratch.read_bytes())


def write_text(place: Place, text: str, writer: str = WHOLE) -> None:
    """Text as a whole file."""
    write_bytes(place, text.encode(), writer)


def write_bytes(place: Place, content: bytes, writer: str = WHOLE) -> None:
    """Bytes as a whole file."""

    def write(scratch: Path) -> None:
        scratch.write_bytes(content)

    write_whole(place, write, writer)


def cannot_write(place: Place, error: OSError) -> CannotWrite:
    """The one error for full disks, missing rights and other refusals."""
    reason = error.strerror or str(error)
    return CannotWrite(
        f"cannot write {place}: {reason}. Free some space or choose another folder; what was finished is kept"
    )


def remove_scratch(folder: Path, writer: str = WHOLE) -> None:
    """Delete what killed processes left behind: that of one part, or all where the folder is held as a whole."""
    writers = r"(whole|\d+-of-\d+)" if writer == WHOLE else writer
    ours = re.compile(rf".+\.\d+\.{writers}{re.escape(SCRATCH_ENDING)}")
    for scratch in folder.rglob(f"*{SCRATCH_ENDING}"):
        if ours.fullmatch(scratch.name):
            scratch.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(place: Place) -> str:
    """Hex digest of a file; InputError where it cannot be read."""
    try:
        if not is_local(place):
            return hashlib.sha256(place.read_bytes()).hexdigest()
        with open(str(place), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{place} cannot be read ({error.strerror or error})") from error
