"""One process at a time on a folder, or one for each part of it."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from uncannyvalley.errors import InputError
from uncannyvalley.storing.files import WHOLE, cannot_write
from uncannyvalley.storing.places import Place, is_local

LOCK = ".uncanny-lock"

_log = logging.getLogger(__name__)


@contextmanager
def held(folder: Place, writer: str = WHOLE) -> Iterator[None]:
    """Hold a folder against other processes; the lock goes with the process, however it ends (flock).

    As a whole it is held alone. A part shares it with other parts, and holds its own part alone. A folder inside a
    study that is being run cannot be held. Object stores, and some file systems, know no locks: there it is on the user.
    """
    if not is_local(folder):
        yield
        return
    path = Path(str(folder)).absolute()
    with ExitStack() as locks:
        for above in path.parents:
            if (above / LOCK).exists():
                locks.enter_context(_locked(above / LOCK, fcntl.LOCK_SH, path, os.O_RDONLY))
        if writer == WHOLE:
            locks.enter_context(_locked(path / LOCK, fcntl.LOCK_EX, path))
        else:
            locks.enter_context(_locked(path / LOCK, fcntl.LOCK_SH, path))
            locks.enter_context(_locked(path / f"{LOCK}-{writer}", fcntl.LOCK_EX, path))
        yield


@contextmanager
def _locked(lock: Path, kind: int, folder: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[None]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, flags, 0o644)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        if not _acquire(descriptor, lock, kind):
            raise InputError(
                f"another process is recording into {folder}; wait for it, or choose another folder"
            )
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, lock: Path, kind: int) -> bool:
    """Whether the lock is ours now. Some cluster file systems know no locks: there, too, it is on the user."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        _log.warning(
            "%s cannot be locked (%s): let no two processes write there", lock.parent, error.strerror
        )
        return True
    # the lock may have been removed between opening and locking, with the folder that it was in
    return lock.exists() and os.fstat(descriptor).st_ino == lock.stat().st_ino
