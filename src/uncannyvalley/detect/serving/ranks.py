"""Ranks in a stream that never ends: counts of scores in fixed cells, in constant memory."""

import math
import struct
from collections.abc import Mapping

MANTISSA_BITS = 9
"""Scores that agree to one part in 512 fall into one cell and count as ties."""

CELLS = 2 << (8 + MANTISSA_BITS)


def cell_of(score: float) -> int:
    """The cell of a score, ascending with it: the first bits of its float32, sign and exponent included."""
    bound = 3.4e38
    bits = struct.unpack("<I", struct.pack("<f", min(max(score, -bound), bound)))[0]
    ascending = bits ^ (0xFFFFFFFF if bits >> 31 else 0x80000000)
    return ascending >> (23 - MANTISSA_BITS)


class Ranks:
    """How many scores so far lie above a new one, and how many tie with it, in O(log CELLS) whatever their number.

    The cells are fixed beforehand, so a score's cell depends on that score alone: rounding to cells leaves exchangeable
    scores exchangeable, and ties are what smoothed p-values are for.
    """

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self._tree = [0] * (CELLS + 1)  # of Fenwick: sums over blocks whose lengths are powers of two
        self._counts: dict[int, int] = {}
        self.total = 0
        for cell, count in (counts or {}).items():
            self._put(cell, count)

    def add(self, score: float) -> None:
        self._put(cell_of(score), 1)

    def above_and_ties(self, score: float) -> tuple[int, int]:
        """Scores in higher cells, and in the same."""
        cell = cell_of(score)
        ties = self._counts.get(cell, 0)
        up_to, place = 0, cell + 1
        while place:
            up_to += self._tree[place]
            place &= place - 1
        return self.total - up_to, ties

    def counts(self) -> dict[int, int]:
        """Cell → scores in it, cells with none left out."""
        return dict(self._counts)

    def _put(self, cell: int, count: int) -> None:
        self._counts[cell] = self._counts.get(cell, 0) + count
        self.total += count
        place = cell + 1
        while place <= CELLS:
            self._tree[place] += count
            place += place & -place


def is_score(value: object) -> bool:
    """Whether it is a number; infinite ones have a rank too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
