"""Numbers that other studies and benchmarks printed: what takes hours is read from their tables, not measured again."""

import re
from dataclasses import dataclass
from pathlib import Path

from uncannyvalley.errors import InputError

ROOT = Path(__file__).resolve().parents[2]

BREADTH, TRAINING, CURVATURE = "studies/breadth.txt", "studies/training.txt", "benchmarks/README.md"


def text_of(name: str) -> str:
    """A printed table of the repository."""
    try:
        return (ROOT / name).read_text()
    except OSError as error:
        raise InputError(f"the printed numbers in {name} are needed and cannot be read: {error}") from error


@dataclass(frozen=True)
class Walked:
    """One line of breadth.txt. Shares are of the images that were right at first; height and depth medians, nats."""

    network: str
    attack: str
    right: int
    flipped: float
    ridge: float
    valley: float
    below: float
    height: float
    depth: float

    def count(self, share: float) -> int:
        """Images behind a printed share."""
        return round(share * self.right)


def breadth(text: str | None = None) -> list[Walked]:
    """Every walk of ``studies/breadth.py``, network by network."""
    found, network, right = [], "", 0
    for line in (text_of(BREADTH) if text is None else text).splitlines():
        if head := re.match(r"(.+) \(\w+\): (\d+)% of (\d+) images right", line):
            network, right = head[1], round(int(head[2]) * int(head[3]) / 100)
        elif network and (row := re.match(r"([\w-]+)((?: +[\d.+-]+%){4})((?: +[\d.+-]+){6})$", line)):
            shares = [float(one.rstrip("%")) / 100 for one in row[2].split()]
            height, depth = (float(one) for one in row[3].split()[:2])
            found.append(Walked(network, row[1], right, *shares, height, depth))
    if not found:
        raise InputError(f"no walk was found in {BREADTH}; print it anew with python studies/breadth.py")
    return found


INTERVAL = r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]"


def interval_in(text: str, section: str, table: str, row: str, column: int) -> tuple[float, float, float]:
    """(value, low, high) of the ``column``-th interval of a row; ``section`` and ``table`` begin lines above it."""
    place = 0
    for heading in (section, table):
        place = text.find(heading, place)
        if place < 0:
            raise InputError(f"the printed table has no line that begins with {heading!r}")
    for line in text[place:].splitlines()[1:]:
        if line.startswith(f"{row} "):
            cells = re.findall(INTERVAL, line)
            if column >= len(cells):
                raise InputError(f"{row!r} has {len(cells)} intervals, the one at {column} was asked for")
            value, low, high = (float(one) for one in cells[column])
            return value, low, high
    raise InputError(f"the printed table has no row {row!r} under {table!r}")


def cells_of(text: str, row: str, after: str = "") -> list[str]:
    """The cells of a row of a table drawn with bars, the first that begins so behind the text ``after``."""
    start = text.find(after)
    if start < 0:
        raise InputError(f"there is no text {after!r}")
    for line in text[start:].splitlines():
        cells = [one.strip() for one in line.strip("│ ").split("│")]
        if line.startswith("│") and cells[0] == row:
            return cells
    raise InputError(f"the printed table has no row {row!r}")
