"""Text of tokens as it may be shown: nothing in it moves the cursor, hides, or turns the direction of reading."""

import unicodedata

PICTURES = 0x2400
"""Unicode's pictures of control characters begin here: ␊ for a line feed, ␛ for an escape."""

DELETE = 0x7F

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs")
"""Categories without a glyph of their own: controls, formats (marks of direction among them), surrogates, spaces."""

RIGHT_TO_LEFT = ("R", "AL", "AN")


def legible(text: str, most: int | None = None) -> str:
    """``text`` with every character visible, cut to ``most`` characters.

    Control characters become their pictures, other characters without a glyph their number, as ⟨U+202E⟩; a combining
    mark at the beginning gets a circle to stand on. Plain spaces stay.
    """
    shown = text if most is None or len(text) <= most else text[: most - 1] + "…"
    if shown and unicodedata.category(shown[0]).startswith("M"):
        shown = f"◌{shown}"
    return "".join(map(_visible, shown))


def _visible(character: str) -> str:
    code = ord(character)
    if character == " " or unicodedata.category(character) not in HIDDEN:
        return character
    if code < ord(" "):
        return chr(PICTURES + code)
    return "␡" if code == DELETE else f"⟨U+{code:04X}⟩"


def runs_right_to_left(text: str) -> bool:
    """Whether ``text`` would reorder what stands beside it."""
    return any(unicodedata.bidirectional(one) in RIGHT_TO_LEFT for one in text)
