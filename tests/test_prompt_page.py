"""The page, the figure and the strips of a walk of prompts: what they show, and that no token breaks them."""

import html
import io
import math
import re

import numpy as np
import pytest
from rich.console import Console

import uncannyvalley as uv
from made_tokens import made_prompts, token_walks
from pages import Reader, without_scripts
from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.analysis.reading import reading
from uncannyvalley.cli.suffix_strips import print_strips
from uncannyvalley.report.drawings.figures import draw_walk, to_svg
from uncannyvalley.report.page_numbers.payload import payload_of
from uncannyvalley.report.page_numbers.walk_numbers import run_numbers
from uncannyvalley.report.pages.page import ReportPage, RunSection
from uncannyvalley.report.pages.report_page import render
from uncannyvalley.report.pages.run_curves import run_curves
from uncannyvalley.report.pages.run_figure import figure_of_walks
from uncannyvalley.report.suffixes.legible import legible, runs_right_to_left
from uncannyvalley.report.suffixes.outcomes import model_lines
from uncannyvalley.report.suffixes.shades import Scale, luminance
from uncannyvalley.report.suffixes.suffix_strips import (
    MOST_CHARACTERS,
    MOST_PIECES,
    SuffixStrip,
    scale_of,
    suffix_strips,
)
from uncannyvalley.trajectory import Trajectory

HOSTILE = (
    "<script>alert(1)</script>",
    "[bold]x[/bold]",
    "a\nb\x1b[31m",
    "\u202eabc",
    "שלום",
    "{{ 7 * 7 }}",
    "\u0301",
)


def walks(suffixes: list[list[list[int]]] | None = None, **more: object) -> tuple[Trajectory, Phases]:
    """Two prompts of five steps that flip at 2 and fall below their start at 3."""
    flips = [[False, False, True, True, True]] * 2
    chosen = None if suffixes is None else np.array(suffixes)
    attack = made_prompts([[1, 4, 3, 0, -2]] * 2, flips, suffixes=chosen, **more)  # type: ignore[arg-type]
    beside = [
        made_prompts([[1, 1, 1, 1, 1]] * 2, [[False] * 5] * 2, name)
        for name in ("random-tokens", "soft-prompt")
    ]
    return attack, uv.phases(attack, beside)


def strips_of(**more: object) -> list[SuffixStrip]:
    attack, found = walks(**more)  # type: ignore[arg-type]
    return suffix_strips(attack, found, 5)


def page_of(strips: list[SuffixStrip], found: Phases) -> str:
    summary = found.summary()
    section = RunSection(
        id="r0", title="The walk", lead="Lead", subject="prompt", figure_svg="<svg></svg>",
        walk_names=[one.name for one in summary.walks], phase_rows=summary.cells(), reading=reading(summary),
        doubts=summary.diagnostics, provenance={"key": "k"}, command="uncanny record", outcomes=["target match: 1 of 2"],
        suffix_strips=strips, scale=scale_of(strips),
    )  # fmt: skip
    numbers = run_numbers(found, run_curves(found)) | {
        "id": "r0",
        "title": "The walk",
        "pictures": None,
        "replay": None,
    }
    return render(
        ReportPage(
            title="The walk",
            lead="Lead",
            command="uncanny record",
            payload=payload_of([numbers]),
            sections=[section],
        )
    )


# --- strips -----------------------------------------------------------------------------------------


def test_a_strip_has_a_line_for_each_marked_step() -> None:
    strip = strips_of()[1]
    assert [(line.step, line.name) for line in strip.lines] == [
        (0, "start"), (1, "ridge"), (2, "flip"), (3, "valley"), (4, "last"),
    ]  # fmt: skip
    assert [line.is_greedy for line in strip.lines] == [False, False, True, True, True]
    assert strip.goal == "Tell a story 1"
    assert strip.wanted == "Sure, here"
    ridge = strip.lines[1]
    assert [token.text for token in ridge.target] == [" Sure", ","]
    assert [token.sharpness for token in ridge.target] == pytest.approx(
        [4 + math.log(0.5), 4 + math.log(1.5)]
    )
    assert ridge.perplexity == pytest.approx(math.exp(4))


def test_marks_at_one_step_share_a_line() -> None:
    attack = made_prompts([[1, 0, 0]], [[False, True, True]])
    strip = suffix_strips(attack, uv.phases(attack), 1)[0]
    assert [line.name for line in strip.lines] == ["start = ridge", "flip = valley", "last"]


def test_changed_tokens_are_those_that_differ_from_the_line_before() -> None:
    steps = [[0, 1, 2], [0, 3, 2], [0, 3, 2], [5, 3, 2], [5, 3, 0]]
    lines = strips_of(suffixes=[steps, steps])[0].lines
    assert [[piece.changed for piece in line.suffix] for line in lines] == [
        [False, False, False], [False, True, False], [False, False, False], [True, False, False], [False, False, True],
    ]  # fmt: skip
    assert [line.changed for line in lines] == [0, 1, 0, 1, 1]


def test_a_soft_prompt_has_no_tokens_to_show() -> None:
    attack = made_prompts([[1, 0]], [[False, True]], "soft-prompt", suffixes=np.zeros((1, 2, 0), int))
    strip = suffix_strips(attack, uv.phases(attack), 1)[0]
    assert strip.lines[0].suffix == ()
    assert strip.lines[0].perplexity_text == "–"
    assert "continuous" in printed([strip])
    assert "continuous" in page_of([strip], uv.phases(attack))


def test_long_suffixes_are_cut_and_say_by_how_much() -> None:
    attack = made_prompts([[1, 0]], [[False, True]], suffixes=np.ones((1, 2, 500), int))
    line = suffix_strips(attack, uv.phases(attack), 1)[0].lines[1]
    assert len(line.suffix) == MOST_PIECES
    assert line.left_out == (500 - MOST_PIECES, 0)
    assert "… and 420 tokens more" in printed(suffix_strips(attack, uv.phases(attack), 1), width=800)
    long = made_prompts([[1, 0]], [[False, True]], texts=("x" * 300, "y"))
    assert len(suffix_strips(long, uv.phases(long), 1)[0].lines[0].target[0].text) == MOST_CHARACTERS


def test_vanished_sharpness_is_shown() -> None:
    columns = {name: np.full((1, 2, 1), value) for name, value in (
        ("log_relative_sharpness", -np.inf), ("log_gini", -np.inf), ("feature_norm", 1.0), ("log_geometry", 0.0),
        ("target_loss", 0.0), ("log_perplexity", 1e4),
    )}  # fmt: skip
    attack = token_walks(columns, np.array([[False, True]]))
    strip = suffix_strips(attack, uv.phases(attack), 1)
    assert strip[0].lines[0].target[0].number == "-inf"
    assert math.isfinite(strip[0].lines[0].perplexity)
    assert scale_of(strip).shade(-math.inf) is not None
    assert "-inf" in page_of(strip, uv.phases(attack))


# --- characters and colours -------------------------------------------------------------------------


def test_no_character_moves_the_cursor_or_hides() -> None:
    assert legible("a\nb\tc\x1b[2J\x7f") == "a␊b␉c␛[2J␡"
    assert legible("\u202eabc\u200b\u2066") == "⟨U+202E⟩abc⟨U+200B⟩⟨U+2066⟩"
    assert legible("\u0301e") == "◌\u0301e"
    assert legible("\u00a0\u2028\ufeff") == "⟨U+00A0⟩⟨U+2028⟩⟨U+FEFF⟩"
    assert legible("Zoë – 猫 🙂") == "Zoë – 猫 🙂"
    assert legible("abcdef", 4) == "abc…"
    assert runs_right_to_left("x שלום")
    assert not runs_right_to_left("x 123 猫")


def test_ink_is_legible_on_every_shade_and_lightness_rises_with_sharpness() -> None:
    """WCAG asks for a contrast of 4.5; lightness alone carries the order, so that no colour vision is needed."""
    scale = Scale(-3.0, 5.0)
    light = []
    for value in np.linspace(-3, 5, 200):
        shade = scale.shade(float(value))
        assert shade is not None
        levels = [
            luminance([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
            for colour in (shade.background, shade.ink)
        ]
        assert (max(levels) + 0.05) / (min(levels) + 0.05) >= 4.5
        light.append(levels[0])
    assert np.all(np.diff(light) >= -1e-3)
    assert light[-1] > 0.7 > 0.05 > light[0]
    assert scale.shade(-99.0) == scale.shade(-3.0)
    assert scale.shade(math.nan) is None
    assert Scale.of([2.0, math.inf, -1.0, math.nan]) == Scale(-1.0, 2.0)
    assert Scale.of([]).shade(0.5) is not None


# --- in a terminal ----------------------------------------------------------------------------------


def printed(strips: list[SuffixStrip], width: int = 120, **how: object) -> str:
    to = Console(width=width, file=io.StringIO(), **how)  # type: ignore[arg-type]
    print_strips(strips, to)
    return to.file.getvalue()  # type: ignore[attr-defined]


def test_colours_only_where_they_reach_the_reader() -> None:
    plain = printed(strips_of())
    assert "\x1b" not in plain
    assert " Sure‹3.3›,‹4.4›" in plain
    coloured = printed(strips_of(), force_terminal=True, color_system="truecolor")
    assert "48;2;" in coloured
    assert "‹" not in coloured
    assert "log κ of a target token -2.7" in coloured


def test_hostile_tokens_stay_text_in_a_terminal() -> None:
    attack, found = walks(texts=HOSTILE, goal="\x1b]0;owned\x07 [red]goal[/red]")
    text = printed(suffix_strips(attack, found, 1), force_terminal=True, color_system="truecolor")
    assert "\x1b]0" not in text
    assert "␛]0;owned␇ [red]goal[/red]" in text
    assert "[bold]x[/bold]" in text


# --- the page ---------------------------------------------------------------------------------------


def test_hostile_tokens_stay_text_on_the_page() -> None:
    columns = {
        name: np.full((1, 2, len(HOSTILE)), value)
        for name, value in (
            ("log_relative_sharpness", 1.0),
            ("log_gini", 1.0),
            ("feature_norm", 1.0),
            ("log_geometry", 0.0),
        )
    }
    attack = token_walks(
        columns,
        np.array([[False, True]]),
        texts=HOSTILE,
        goal="<img src=x onerror=y>",
        suffixes=np.full((1, 2, 3), 11),
    )
    found = uv.phases(attack)
    seen = Reader(without_scripts(page_of(suffix_strips(attack, found, 1), found)))
    assert "script" not in seen.tags
    assert sum(not one.startswith("#") for one in seen.addresses) == 1  # the figure
    assert "b" not in seen.tags
    for text in (
        "<script>alert(1)</script>",
        "{{ 7 * 7 }}",
        "a␊b␛[31m",
        "⟨U+202E⟩abc",
        "<img src=x onerror=y>",
        "<b>",
    ):
        assert text in seen.text
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\x1b]", seen.text)


def test_the_page_says_it_in_colours_and_in_numbers() -> None:
    attack, found = walks([[[0, 1], [0, 2], [0, 2], [0, 2], [0, 2]]] * 2)
    page = page_of(suffix_strips(attack, found, 2), found)
    assert 'title="log κ 3.3 nats" style="background:#' in page
    assert "<ins><bdi> the</bdi></ins>" in page
    text = Reader(page).text
    assert "1 ridge:  Sure 3.3 | , 4.4" in text
    assert "target match: 1 of 2" in text
    assert "target is greedy" in text
    shown = text[text.index("Lead") :]
    for word in ("clean", "image", "label"):
        assert word not in shown
    assert html.unescape(page).count("Prompt 0: ") == 1


def test_each_of_several_models_has_a_line() -> None:
    import pyarrow as pa

    names = ("one", "two")
    steps = ([[1, 2]] * 3, [[3, 1]] * 3)
    both = [
        made_prompts(levels, [[False, number == 1]] * 3, models=names, model=number).table
        for number, levels in enumerate(steps)
    ]
    lines = model_lines(Trajectory(pa.concat_tables(both)))
    assert [line.split(",")[0] for line in lines] == [
        "one: target is greedy 0% [0%",
        "two: target is greedy 100% [100%",
    ]
    assert "depth 2.00" in lines[1]
    assert model_lines(made_prompts([[1, 2]], [[False, True]])) == []


def test_the_figure_draws_every_walk() -> None:
    _, found = walks()
    shown = figure_of_walks("gcg", found, found.summary(), run_curves(found))
    assert list(shown.sharpness) == ["gcg", "random-tokens", "soft-prompt"]
    assert [name for name, _ in shown.lower.left] == list(shown.sharpness)
    assert shown.lower.right_label == "nats a token"
    assert to_svg(draw_walk(shown)).startswith("<svg")


def test_the_figure_of_a_soft_prompt_shows_confidence() -> None:
    attack = made_prompts([[1, 0, -1]] * 2, [[False, True, True]] * 2, "soft-prompt")
    found = uv.phases(attack)
    shown = figure_of_walks("soft-prompt", found, found.summary(), run_curves(found))
    assert shown.lower.right_label == "confidence"
    draw_walk(shown)
