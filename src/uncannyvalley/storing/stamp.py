"""A file that proves itself: it holds the SHA-256 of all its bytes, those of the hash counted as zeros.

A flipped bit anywhere, in the stamp too, makes the two disagree. Parquet's own page checksums leave the footer and
the page headers uncovered, and a manifest can be lost; a stamp lies inside the file that it speaks of.
"""

import hashlib
import mmap
from pathlib import Path

MARK = b"uncanny-sha256:"
_ZEROS = b"0" * 64

BLANK = (MARK + _ZEROS).decode()
"""What a writer puts where the stamp shall be."""


def stamp(content: bytes) -> bytes:
    """``content`` with its last blank stamp filled in."""
    place = content.rindex(BLANK.encode()) + len(MARK)
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[:place] + digest + content[place + len(digest) :]


def stamp_file(path: Path) -> str:
    """Fill in the blank stamp of a file; returns the SHA-256 of the file as it is then."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        place = content.rfind(BLANK.encode()) + len(MARK)
        content[place : place + len(_ZEROS)] = hashlib.sha256(content).hexdigest().encode()
        return hashlib.sha256(content).hexdigest()


def is_intact(content: bytes) -> bool:
    """Whether ``content`` carries a stamp that agrees with it."""
    place = content.find(MARK)
    while place >= 0:
        if _agrees(content, place + len(MARK)):
            return True
        place = content.find(MARK, place + 1)
    return False


def _agrees(content: bytes, place: int) -> bool:
    end = place + len(_ZEROS)
    digest = hashlib.sha256(memoryview(content)[:place])
    digest.update(_ZEROS)
    digest.update(memoryview(content)[end:])
    return content[place:end] == digest.hexdigest().encode()
