"""One of several equal parts of a study, for job arrays: no part needs to know of the others."""

import re
from dataclasses import dataclass

from uncannyvalley.errors import InputError
from uncannyvalley.storing.files import WHOLE


@dataclass(frozen=True)
class Part:
    """Every ``count``-th shard of the study's list, beginning with shard ``number`` − 1.

    Taken in turn, not in blocks, so that cheap and costly attacks are spread over all parts.
    """

    number: int
    count: int

    @property
    def writer(self) -> str:
        """Who writes: names the part's lock, scratch files and manifests."""
        return WHOLE if self.count == 1 else f"{self.number}-of-{self.count}"

    def has(self, shard: int) -> bool:
        """Whether the shard with this number in the study's list belongs to the part."""
        return shard % self.count == self.number - 1

    @classmethod
    def read(cls, text: str) -> "Part":
        """A part written as 3/40; InputError for anything else."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"--part takes K/N with 1 ≤ K ≤ N, such as 3/40, got {text!r}")
        return cls(int(found[1]), int(found[2]))


EVERYTHING = Part(1, 1)
