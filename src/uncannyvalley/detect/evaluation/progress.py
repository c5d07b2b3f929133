"""How the long parts of an evaluation tell how far they are."""

from collections.abc import Callable

Advance = Callable[[int], None]

Progress = Callable[[str, int], Advance]
"""(name of a part, images in all) → what is called with the number of images that are done since the last call."""


def started(progress: Progress | None, name: str, total: int) -> Advance:
    """A part that begins; nothing is told where nobody asks."""
    return progress(name, total) if progress is not None else lambda done: None
