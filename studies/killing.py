"""Commands that die of SIGKILL at a chosen moment, and what is left of a folder against an undisturbed one."""

import os
import random
import re
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import numpy as np
import pyarrow.parquet as pq

MORTAL = Path(__file__).with_name("mortal.py")
SIGKILLED = -signal.SIGKILL
MARK = "UNCANNY_MORTAL"


@dataclass(frozen=True)
class Life:
    """An undisturbed process: its seconds, and its file operations in the folder."""

    seconds: float
    operations: list[str]


@dataclass(frozen=True)
class Death:
    """A process that was killed, or ended first: how it was to die, the operation before, and its exit code."""

    how: str
    last: str
    code: int

    @property
    def killed(self) -> bool:
        return self.code == SIGKILLED


def start(command: Sequence[str], out: Path, log: Path, number: int = 0, delay: float = 0) -> Popen[bytes]:
    """``uncanny command`` with its operations in ``out`` logged, and what it says in LOG.said.

    The environment of the process and of all below it names its log: that is how orphans are found.
    """
    log.write_text("")
    with _said(log).open("wb") as said:
        return Popen(
            [sys.executable, str(MORTAL), str(log), str(out), str(number), str(delay), *command],
            stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1", MARK: str(log.resolve())},
        )  # fmt: skip


def live(command: Sequence[str], out: Path, log: Path) -> Life:
    """The command, undisturbed; RuntimeError with what it said where it fails."""
    started = time.monotonic()
    return _ended(start(command, out, log), command, log, started)


def _ended(process: Popen[bytes], command: Sequence[str], log: Path, started: float) -> Life:
    if code := process.wait():
        said = _said(log).read_text(errors="replace")[-2000:]
        raise RuntimeError(f"uncanny {' '.join(command)} ended with {code}: {said}")
    return Life(time.monotonic() - started, log.read_text().splitlines())


def _said(log: Path) -> Path:
    return log.with_suffix(".said")


def kill_at_operation(command: Sequence[str], out: Path, log: Path, number: int, delay: float = 0) -> Death:
    """The command, killed ``delay`` seconds after it began its file operation ``number``."""
    process = start(command, out, log, number, delay)
    process.wait()
    return Death(f"operation {number} + {1e3 * delay:.1f} ms", _last(log), process.returncode)


def kill_at_time(command: Sequence[str], out: Path, log: Path, seconds: float) -> Death:
    """The command, killed ``seconds`` after its start from outside."""
    process = start(command, out, log)
    try:
        process.wait(timeout=seconds)
    except TimeoutExpired:
        process.kill()
        process.wait()
    return Death(f"{seconds:.2f} s", _last(log), process.returncode)


def kill_randomly(command: Sequence[str], out: Path, log: Path, life: Life, draw: random.Random) -> Death:
    """Half of the deaths uniform over the clock, half uniform over the file operations and a little later."""
    if draw.random() < 0.5:
        return kill_at_time(command, out, log, draw.uniform(0, life.seconds))
    number, delay = draw.randint(1, len(life.operations)), draw.choice([0, draw.uniform(0, 0.003)])
    return kill_at_operation(command, out, log, number, delay)


def kill_workers(
    command: Sequence[str], out: Path, log: Path, delay: float, count: int, draw: random.Random
) -> tuple[int, Life]:
    """``count`` Ray workers of the command are killed, ``delay`` seconds after the first one is there.

    Returns how many were, and the life of the driver, which is expected to end well.
    """
    started = time.monotonic()
    process = start(command, out, log)
    while process.poll() is None and not actors(log):
        time.sleep(0.02)
    time.sleep(delay)
    alive = actors(log)
    victims = draw.sample(alive, min(count, len(alive)))
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    return len(victims), _ended(process, command, log, started)


def below(log: Path) -> list[int]:
    """Living processes that ``start`` began with this log, and all below them."""
    mark = f"{MARK}={log.resolve()}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked
                if mark in (entry / "environ").read_bytes().split(b"\0") and _runs(entry):
                    found.append(int(entry.name))
    return found


def _runs(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"


def actors(log: Path) -> list[int]:
    """Ray workers below a driver that have an actor."""
    found = []
    for one in below(log):
        with suppress(OSError):
            title = Path(f"/proc/{one}/cmdline").read_bytes()
            if title.startswith(b"ray::") and not any(one in title for one in (b"IDLE", b"Agent")):
                found.append(one)
    return found


def _last(log: Path) -> str:
    """The last operation, without the names of cells and of scratch files' processes."""
    lines = log.read_text().splitlines()
    if not lines:
        return "none yet"
    return re.sub(r"model=.*seed=\d+/?", "…/", re.sub(r"\.\d+\.[\w-]+\.tmp", ".tmp", lines[-1]))


def files(folder: Path) -> set[str]:
    """All files below, but for locks."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".uncanny-lock")
    }


def differences(folder: Path, undisturbed: Path, tolerance: float = 0) -> list[str]:
    """How a resumed folder differs: files lost or left, tables with other rows, values further off than allowed.

    Manifests are left out: parts keep their own, until a run as a whole merges them.
    """
    ours, theirs = (
        {one for one in files(place) if not Path(one).name.startswith("manifest")}
        for place in (folder, undisturbed)
    )
    found = [f"lost {one}" for one in sorted(theirs - ours)] + [
        f"left {one}" for one in sorted(ours - theirs)
    ]
    for name in sorted(one for one in ours & theirs if one.endswith(".parquet")):
        found += [
            f"{name}: {what}" for what in _table_differences(folder / name, undisturbed / name, tolerance)
        ]
    return found


def _table_differences(ours: Path, theirs: Path, tolerance: float) -> list[str]:
    mine, other = pq.read_table(ours), pq.read_table(theirs)
    if mine.schema != other.schema or mine.num_rows != other.num_rows:
        return [
            f"{mine.num_rows} rows of {len(mine.schema)} columns for {other.num_rows} of {len(other.schema)}"
        ]
    found = []
    for column in mine.column_names:
        a, b = mine[column].combine_chunks(), other[column].combine_chunks()
        if a.equals(b):
            continue
        x, y = (np.asarray(one.to_pylist(), dtype=object) for one in (a, b))
        try:
            off = float(np.nanmax(np.abs(x.astype(float) - y.astype(float))))
        except (TypeError, ValueError):
            off = float("inf")
        if off > tolerance:
            found.append(f"{column} is off by {off:.3g}")
    return found
