"""Strips of suffixes in a terminal: a line for each marked step, target tokens coloured by their log κ."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from uncannyvalley.cli.printing import console

if TYPE_CHECKING:
    from uncannyvalley.report.suffixes.shades import Scale
    from uncannyvalley.report.suffixes.suffix_strips import SuffixLine, SuffixStrip, TargetToken

ISOLATE, END_ISOLATE = "\u2068", "\u2069"
"""Around a token that reads from right to left, so that it does not reorder its neighbours."""


def print_strips(strips: Sequence["SuffixStrip"], to: Console = console) -> None:
    """Every strip as a table, then the legend of their colours; numbers stand in for colours where there are none."""
    from uncannyvalley.report.suffixes.suffix_strips import scale_of

    scale, has_colours = scale_of(strips), shows_colours(to)
    for strip in strips:
        to.print(_table(strip, scale, has_colours))
        to.print()
    if strips:
        to.print(_legend(scale, has_colours))


def shows_colours(to: Console) -> bool:
    """Whether colours reach the reader: not in files and pipes, nor where NO_COLOR is set."""
    return to.is_terminal and to.color_system is not None and not to.no_color


def _table(strip: "SuffixStrip", scale: "Scale", has_colours: bool) -> Table:
    title = Text(f"Prompt {strip.example}: ", style="bold")
    title.append(_isolated(strip.goal), style="not bold").append(" → ").append(_isolated(strip.wanted))
    table = Table(
        title=title, title_justify="left", title_style="", header_style="bold", box=None, pad_edge=False
    )
    for name in ("step", "suffix", "target"):
        table.add_column(name, overflow="fold")
    table.add_column("loss", justify="right", no_wrap=True)
    table.add_column("perplexity", justify="right", no_wrap=True)
    for line in strip.lines:
        table.add_row(
            Text(f"{line.step} {line.name}"), _suffix(line), _target(line, scale, has_colours),
            f"{line.target_loss:.3f}", line.perplexity_text,
        )  # fmt: skip
    return table


def _suffix(line: "SuffixLine") -> Text:
    """Tokens that are new since the line before underlined."""
    if not line.suffix:
        return Text("continuous", style="dim")
    text = Text()
    for piece in line.suffix:
        text.append(_isolated(piece.text), style="bold underline" if piece.changed else "")
    return _with_rest(text, line.left_out[0])


def _target(line: "SuffixLine", scale: "Scale", has_colours: bool) -> Text:
    text = Text()
    for token in line.target:
        text.append_text(_token(token, scale, has_colours))
    return _with_rest(text, line.left_out[1])


def _token(token: "TargetToken", scale: "Scale", has_colours: bool) -> Text:
    shown = _isolated(token.text)
    shade = scale.shade(token.sharpness)
    if not has_colours:
        return Text(f"{shown}‹{token.number}›")
    return Text(shown, style="" if shade is None else f"{shade.ink} on {shade.background}")


def _with_rest(text: Text, left_out: int) -> Text:
    return text.append(f" … and {left_out} tokens more", style="dim") if left_out else text


def _legend(scale: "Scale", has_colours: bool) -> Text:
    if not has_colours:
        return Text(
            "‹log κ› behind each target token, in nats. loss: of the target, in nats; perplexity: of the suffix.",
            style="dim",
        )
    text = Text(f"log κ of a target token {scale.low:.1f} ", style="dim")
    for shade in scale.legend():
        text.append("  ", style=f"on {shade.background}")
    text.append(
        f" {scale.high:.1f} nats; underlined: new in the suffix. loss: of the target, in nats; perplexity: of the suffix."
    )
    return text


def _isolated(text: str) -> str:
    from uncannyvalley.report.suffixes.legible import runs_right_to_left

    return f"{ISOLATE}{text}{END_ISOLATE}" if runs_right_to_left(text) else text
