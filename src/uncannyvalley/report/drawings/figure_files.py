"""Figures as files: the format by the ending, the size in inches, the same bytes each time."""

import math

from matplotlib.figure import Figure
from matplotlib.text import Text

from uncannyvalley.checks import is_number
from uncannyvalley.errors import InputError
from uncannyvalley.report.drawings.figures import texts_as_they_are, to_pdf, to_png, to_svg

ENDINGS = (".png", ".svg", ".pdf")

WIDTHS = (5.5, 40.0)
"""Inches: what letters of the usual size need, and a poster."""

RESOLUTIONS = (30.0, 1200.0)
"""Dots an inch."""

ROOM = 0.96
"""Share of its room that a text may fill: letters are a little wider at some resolutions."""


def as_file(figure: Figure, ending: str, dpi: float = 150.0) -> bytes:
    """The bytes of a file with this ending. ``dpi`` is that of PNG; the others are drawn in lines. Titles are made to fit.

    Raises InputError for another ending, or a resolution beyond RESOLUTIONS.
    """
    check_ending(ending)
    check_resolution(dpi)
    _fit_texts(figure)
    if ending == ".png":
        return to_png(figure, dpi)
    return to_svg(figure).encode() if ending == ".svg" else to_pdf(figure)


def check_ending(ending: str) -> None:
    """Raise InputError unless figures are written with this ending."""
    if ending not in ENDINGS:
        raise InputError(f"figures are written as {', '.join(ENDINGS)}, got {ending or 'no ending'!r}")


def check_resolution(dpi: object) -> None:
    """Raise InputError unless pictures can be drawn with so many dots an inch."""
    _check_between("--dpi", dpi, RESOLUTIONS)


def resize(figure: Figure, width: float) -> None:
    """Make a figure ``width`` inches wide; letters keep their size.

    Height grows and shrinks with the square root of the width, since half of what stands in a panel's way is text. Raises
    InputError for a width beyond WIDTHS.
    """
    check_width(width)
    before, height = figure.get_size_inches()
    figure.set_size_inches(width, height * math.sqrt(width / before))


def _fit_texts(figure: Figure) -> None:
    """Titles that are longer than there is room, and labels that are longer than their axes, are set in smaller letters."""
    with texts_as_they_are(figure):
        figure.draw_without_rendering()  # says where everything is
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_fontweight() == "bold":  # titles of the figure and of panels
            box = text.get_window_extent()
            _shrink(text, box.width, figure.bbox.width - max(box.x0, 0.0))
    for axes in figure.axes:
        room = axes.get_window_extent()
        _shrink(axes.xaxis.label, axes.xaxis.label.get_window_extent().width, room.width)
        _shrink(axes.yaxis.label, axes.yaxis.label.get_window_extent().height, room.height)


def _shrink(text: Text, length: float, room: float) -> None:
    if length > ROOM * room > 0:
        text.set_fontsize(float(text.get_fontsize()) * ROOM * room / length)


def check_width(width: object) -> None:
    """Raise InputError unless figures can be drawn so many inches wide."""
    _check_between("--width", width, WIDTHS)


def _check_between(option: str, value: object, limits: tuple[float, float]) -> None:
    low, high = limits
    if not (is_number(value) and low <= value <= high):
        raise InputError(f"{option} takes a number between {low:g} and {high:g}, got {value!r}")
