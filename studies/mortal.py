"""The command line in a process that logs its file operations in one folder, and kills itself at a chosen one.

    python studies/mortal.py LOG FOLDER NUMBER DELAY record --out FOLDER …

Every operation that Python does on a path in FOLDER becomes a line of LOG before it is done (Python's audit events:
open, rename, remove, make and list folders, lock). NUMBER is the operation at which the process dies of SIGKILL, DELAY
seconds later: what Arrow writes and what the disk is asked to flush happens between two operations. 0 only logs.
"""

import os
import signal
import sys
import threading
from typing import Any

OPERATIONS = (
    "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "os.link", "os.truncate", "shutil.rmtree",
)  # fmt: skip


class Witness:
    """Counts operations on paths in ``folder``, writes them to ``log``, and dies at number ``last``."""

    def __init__(self, log: str, folder: str, last: int, delay: float) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._folder, self._last, self._delay = os.path.abspath(folder), last, delay
        self._seen = 0
        self._process = os.getpid()

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or os.getpid() != self._process:
            return
        paths = [os.fspath(one) for one in arguments if isinstance(one, str | os.PathLike)]
        if not paths or not os.path.abspath(paths[0]).startswith(self._folder):
            return
        self._seen += 1
        inside = os.path.relpath(paths[0], self._folder)
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        os.write(self._log, f"{'write' if writes else event.removeprefix('os.')} {inside}\n".encode())
        if self._seen == self._last:
            self._die()

    def _die(self) -> None:
        if self._delay:
            threading.Timer(self._delay, os.kill, (self._process, signal.SIGKILL)).start()
        else:
            os.kill(self._process, signal.SIGKILL)


def main() -> None:
    log, folder, number, delay, *arguments = sys.argv[1:]
    sys.addaudithook(Witness(log, folder, int(number), float(delay)).see)
    sys.argv = ["uncanny", *arguments]
    from uncannyvalley.cli.app import main as uncanny

    uncanny()


if __name__ == "__main__":
    main()
