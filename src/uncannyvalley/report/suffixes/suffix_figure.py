"""Strips of suffixes as a figure: each marked step with its suffix, new tokens underlined, and its target coloured by log κ."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle

from uncannyvalley.report.drawings.figures import INK, STYLE
from uncannyvalley.report.suffixes.shades import Scale
from uncannyvalley.report.suffixes.suffix_strips import SuffixLine, SuffixStrip, scale_of

INCHES = 8.6
LETTERS = 8.5
"""Points; a letter of the font is LETTER_WIDTH of it wide, a line LINE_HEIGHT high."""

LETTER_WIDTH, LINE_HEIGHT = 0.62, 1.62

MARGIN = 0.14
"""Inches around the text."""

HEAD = 0.46
"""Inches for the title."""

FONT = "DejaVu Sans Mono"
QUIET = "#666666"
INDENT = 2


@dataclass(frozen=True)
class _Words:
    """A text at a row and a column, with its background, and whether it is bold, or new in the suffix."""

    row: int
    column: int
    text: str
    ink: str = INK
    background: str | None = None
    bold: bool = False
    underlined: bool = False


@dataclass
class _Sheet:
    """Texts set line by line, in letters of one width."""

    columns: int
    row: int = 0
    words: list[_Words] = field(default_factory=list)

    def line(self, text: str, *, ink: str = INK, bold: bool = False) -> None:
        """One line, cut where it is too long."""
        shown = drawable(text)
        shown = shown if len(shown) <= self.columns else f"{shown[: self.columns - 1]}…"
        self.words.append(_Words(self.row, 0, shown, ink, bold=bold))
        self.row += 1

    def tokens(self, pieces: Iterable[_Words]) -> None:
        """Pieces one behind the other, in as many lines as they need."""
        column = INDENT
        for one in pieces:
            text = drawable(one.text)[: self.columns - INDENT]
            if column + len(text) > self.columns:
                self.row, column = self.row + 1, INDENT
            placed = _Words(self.row, column, text, one.ink, one.background, one.bold, one.underlined)
            self.words.append(placed)
            column += len(text)
        self.row += 1

    def gap(self) -> None:
        self.row += 1


def drawable(text: str) -> str:
    """``text`` with the number, as ⟨U+65E5⟩, in place of each letter that the font has not."""
    known = _known_letters()
    return "".join(one if ord(one) in known else f"⟨U+{ord(one):04X}⟩" for one in text)


@lru_cache(1)
def _known_letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=FONT))).get_charmap())


def draw_suffixes(title: str, strips: Sequence[SuffixStrip], width: float | None = None) -> Figure:
    """The marked steps of some prompts, one below the other.

    width  inches; texts are broken to fit
    """
    inches = width or INCHES
    sheet = _Sheet(int((inches - 2 * MARGIN) * 72 / (LETTERS * LETTER_WIDTH)))
    scale = scale_of(strips)
    for strip in strips:
        _set_strip(sheet, strip, scale)
    _set_legend(sheet, scale)
    with matplotlib.rc_context(STYLE):
        text_height = sheet.row * LETTERS * LINE_HEIGHT / 72
        figure = Figure(figsize=(inches, HEAD + text_height + MARGIN))
        FigureCanvasAgg(figure)
        height = figure.get_size_inches()[1]
        axes = figure.add_axes(
            (MARGIN / inches, MARGIN / height, 1 - 2 * MARGIN / inches, text_height / height)
        )
        axes.set_axis_off()
        axes.set_xlim(0, (inches - 2 * MARGIN) * 72 / (LETTERS * LETTER_WIDTH))
        axes.set_ylim(sheet.row, 0)
        figure.suptitle(
            title, x=0.01, y=1 - 0.1 / height, ha="left", va="top", fontsize=12.5, fontweight="bold"
        )
        for words in sheet.words:
            _draw(axes, words)
    return figure


def _set_strip(sheet: _Sheet, strip: SuffixStrip, scale: Scale) -> None:
    sheet.line(f"Prompt {strip.example}: {strip.goal}", bold=True)
    sheet.line(f"wanted: {strip.wanted}", ink=QUIET)
    for line in strip.lines:
        sheet.line(_facts(line), ink=QUIET)
        sheet.tokens(_suffix(line))
        sheet.tokens(_target(line, scale))
    sheet.gap()


def _facts(line: SuffixLine) -> str:
    greedy = ", target greedy" if line.is_greedy else ""
    return f"step {line.step}, {line.name}: loss {line.target_loss:.3f}, perplexity {line.perplexity_text}{greedy}"


def _suffix(line: SuffixLine) -> list[_Words]:
    if not line.suffix:
        return [_Words(0, 0, "continuous: it has no tokens", ink=QUIET)]
    pieces = [_Words(0, 0, one.text, underlined=one.changed) for one in line.suffix]
    return [*pieces, *_rest(line.left_out[0])]


def _target(line: SuffixLine, scale: Scale) -> list[_Words]:
    shaded = [(token.text, scale.shade(token.sharpness)) for token in line.target]
    tokens = [
        _Words(0, 0, text) if shade is None else _Words(0, 0, text, shade.ink, shade.background)
        for text, shade in shaded
    ]
    return [_Words(0, 0, "→ ", ink=QUIET), *tokens, *_rest(line.left_out[1])]


def _rest(left_out: int) -> list[_Words]:
    return [_Words(0, 0, f" … and {left_out} more", ink=QUIET)] if left_out else []


def _set_legend(sheet: _Sheet, scale: Scale) -> None:
    colours = [_Words(0, 0, "  ", background=one.background) for one in scale.legend()]
    ends = (
        f"log κ of a target token: {scale.low:.1f} ",
        f" {scale.high:.1f} nats; underlined: new in the suffix",
    )
    sheet.tokens([_Words(0, 0, ends[0], ink=QUIET), *colours, _Words(0, 0, ends[1], ink=QUIET)])


def _draw(axes: Axes, words: _Words) -> None:
    left, width = words.column, len(words.text)
    if words.background is not None:
        axes.add_patch(Rectangle((left, words.row + 0.06), width, 0.88, color=words.background, linewidth=0))
    axes.text(
        left, words.row + 0.72, words.text, family=FONT, fontsize=LETTERS, color=words.ink, va="baseline", ha="left",
        fontweight="bold" if words.bold else "normal",
    )  # fmt: skip
    if words.underlined:
        axes.plot(
            [left, left + width], [words.row + 0.9] * 2, "-", color=INK, linewidth=1.1, solid_capstyle="butt"
        )
