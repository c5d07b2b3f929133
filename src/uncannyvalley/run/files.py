"""Files that are there whole or not at all, and one process at a time on a folder."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from uncannyvalley.errors import InputError

SCRATCH_ENDING = ".tmp"


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """``write`` into a scratch file beside ``path``, flush it to the disk, then rename it into place.

    A process that dies leaves the old file, or none; plain writes in place are lost by most kills.
    """
    scratch = path.with_name(path.name + SCRATCH_ENDING)
    try:
        write(scratch)
        descriptor = os.open(scratch, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(scratch, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Text as a whole file."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Bytes as a whole file."""

    def write(scratch: Path) -> None:
        scratch.write_bytes(content)

    write_whole(path, write)


def cannot_write(path: Path, error: OSError) -> InputError:
    """The one error for full disks, missing rights and other refusals."""
    reason = error.strerror or str(error)
    return InputError(
        f"cannot write {path}: {reason}. Free some space or choose another folder; what was finished is kept"
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes; the lock goes with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another process is recording into {folder}; wait for it, or choose another folder"
            ) from error
        yield
    finally:
        os.close(descriptor)
