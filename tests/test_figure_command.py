"""``uncanny figure``: every named figure of real folders, its numbers, its bytes, and what it refuses."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from detect_cases import CLEAN, fit_demo, run
from folders import tiny_network, uncanny
from uncannyvalley.analysis.summary import RIDGE
from uncannyvalley.report.drawings.figure_files import ENDINGS, WIDTHS, as_file, resize
from uncannyvalley.report.drawings.figures import to_pdf, to_png, to_svg
from uncannyvalley.report.drawings.image_strips import draw_image_strips, image_strip
from uncannyvalley.report.named_figures.catalogue import FIGURES, drawn, reasons_against
from uncannyvalley.report.named_figures.drawn_folders import DrawnFolders, open_drawn
from uncannyvalley.report.page_numbers.pictures import amplified
from uncannyvalley.report.suffixes.suffix_figure import draw_suffixes
from uncannyvalley.report.suffixes.suffix_strips import Piece, SuffixLine, SuffixStrip, TargetToken

OF_A_RUN = {
    "walk", "sharpness", "shares", "loss", "phases", "flips", "strips", "temperatures", "roc", "rates", "bound", "radii",
}  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with logits and images, an evaluation of a detector, bounds and certificates."""
    folder = tmp_path_factory.mktemp("figures")
    out = folder / "run"
    walk = (
        "--eps",
        "0.4",
        "--step-size",
        "0.05",
        "--steps",
        "12",
        "--limit",
        "24",
        "--keep-images",
        "8",
        "--keep",
        "logits",
    )
    uncanny("record", *walk, "--out", out)
    uncanny("bound", out)
    uncanny("certify", "--limit", "6", "--steps", "3", "--out", out / "bounds")
    fit_demo(folder / "demo.detector")
    held = (
        "--skip",
        CLEAN,
        "--limit",
        "40",
        "--eps",
        "0.2",
        "--attack",
        "fgsm",
        "--attack",
        "pgd:steps=3",
        "--turns",
        "0",
    )
    run("evaluate", folder / "demo.detector", *held, "--out", out / "detection")
    return out


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a user's own network, without images or logits."""
    folder = tmp_path_factory.mktemp("second")
    model = tiny_network(folder)
    walk = (
        "--model",
        model,
        "--eps",
        "0.3",
        "--steps",
        "4",
        "--limit",
        "8",
        "--keep-images",
        "0",
        "--no-controls",
    )
    uncanny("record", *walk, "--out", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "training"
    uncanny("train", "--epochs", "2", "--limit", "200", "--out", out)
    return out


def size_of(content: bytes | Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    return Image.open(io.BytesIO(content if isinstance(content, bytes) else content.read_bytes())).size


def shown(*folders: Path) -> DrawnFolders:
    return open_drawn([str(one) for one in folders])


def test_the_list_says_what_can_be_drawn_and_why_not_the_rest(recorded: Path, second: Path) -> None:
    listed = json.loads(uncanny("figure", "--list", recorded, "--json").stdout)["figures"]
    assert [one["name"] for one in listed] == list(FIGURES)
    assert {one["name"] for one in listed if one["drawable"]} == OF_A_RUN
    reasons = {one["name"]: one["reason"] for one in listed}
    assert "2 to 12 runs" in reasons["comparison"]
    assert "uncanny measure --out" in reasons["depth"]
    of_second = reasons_against(shown(second))
    assert "--keep-images" in of_second["strips"]
    assert "--keep logits" in of_second["temperatures"]
    assert "uncanny bound" in of_second["bound"]
    assert not of_second["walk"]
    printed = " ".join(uncanny("figure", second, "--list").stdout.split())
    assert "Not of these folders" in printed
    assert all(name in uncanny("figure", "--list").stdout for name in FIGURES)


@pytest.mark.parametrize("name", sorted(OF_A_RUN))
def test_every_figure_of_a_run_is_a_picture_and_the_same_bytes_again(
    recorded: Path, name: str, tmp_path: Path
) -> None:
    uncanny("figure", recorded, name, "--out", tmp_path)
    content = (tmp_path / f"{name}.png").read_bytes()
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    assert picture.shape[1] > 700
    assert 0.001 < (picture < 128).mean() < 0.6
    assert as_file(drawn(name, shown(recorded)), ".png") == content


def test_formats_have_no_dates_and_the_same_bytes(recorded: Path, tmp_path: Path) -> None:
    for ending in ENDINGS:
        files = [tmp_path / f"{number}{ending}" for number in (1, 2)]
        for file in files:
            uncanny("figure", recorded, "walk", "--out", file)
        first, again = (file.read_bytes() for file in files)
        assert first == again
        assert not any(word in first for word in (b"CreationDate", b"dc:date", b"Matplotlib v"))
    assert (tmp_path / "1.pdf").read_bytes().startswith(b"%PDF-")
    assert (tmp_path / "1.svg").read_text().startswith("<svg")


def test_size_and_resolution_are_those_asked_for(recorded: Path, tmp_path: Path) -> None:
    for name in ("phases", "strips"):
        uncanny("figure", recorded, name, "--width", "6", "--dpi", "100", "--out", tmp_path)
        assert size_of(tmp_path / f"{name}.png")[0] == 600


@pytest.mark.parametrize("name", sorted(OF_A_RUN))
def test_no_text_leaves_the_narrowest_figure(recorded: Path, name: str) -> None:
    width = WIDTHS[0]
    figure = drawn(name, DrawnFolders(shown(recorded).places, width))
    resize(figure, width)
    as_file(figure, ".png")
    figure.draw_without_rendering()
    edge = 0.015 * figure.bbox.width
    ticks = [
        text
        for one in figure.axes
        for axis in (one.xaxis, one.yaxis)
        for text in axis.findobj(Text)
        if text is not axis.label
    ]
    for text in figure.findobj(Text):
        if (
            not text.get_text() or not text.get_visible() or text in ticks
        ):  # ticks beyond an axis are not drawn
            continue
        box = text.get_window_extent()
        assert box.x0 > -edge, text
        assert box.x1 < figure.bbox.width + edge, text


def test_panels_show_the_numbers_of_the_run(recorded: Path) -> None:
    folders = shown(recorded)
    walk, found = folders.run.trajectory, folders.phases
    correct = found.flip_step != 0
    flips = drawn("flips", folders)
    attack = flips.axes[0].lines[0]
    for step in (0, 3, 12):
        share = (found.flip_step[correct] <= step).mean()
        at, shares = np.asarray(attack.get_xdata()), np.asarray(attack.get_ydata())
        assert shares[at <= step][-1] == pytest.approx(share)
    heights = drawn("phases", folders).axes[0].lines[0]
    at, shares = np.asarray(heights.get_xdata()), np.asarray(heights.get_ydata())
    assert shares[at >= RIDGE][0] == pytest.approx((found.ridge_height[correct] >= RIDGE).mean())
    sharpness = drawn("sharpness", folders).axes[0].lines[0]
    medians = np.median(walk.column("log_relative_sharpness")[correct], axis=0)
    assert np.allclose(np.asarray(sharpness.get_ydata()), medians)
    assert [line.get_label() for line in drawn("temperatures", folders).axes[0].lines][:2] == [
        "recorded",
        "T = 0.5",
    ]


def test_strips_are_the_kept_images_of_flipped_examples(recorded: Path) -> None:
    folders = shown(recorded)
    kept, found = folders.run.images(), folders.phases
    figure = drawn("strips", folders)
    first = next(one for one in kept if found.flip_step[list(found.example).index(one)] > 0)
    assert f"example {first}\n" in figure.axes[0].get_ylabel()
    pixels = np.asarray(figure.axes[0].images[0].get_array())
    assert np.array_equal(pixels, kept[first][0][1][0])
    moved = amplified(kept[first])
    assert moved is not None
    assert np.allclose(np.asarray(figure.axes[4].images[0].get_array()), np.clip(moved[2][0], 0, 1))


def test_the_rates_are_those_of_the_evaluation(recorded: Path) -> None:
    outcome = json.loads((recorded / "detection" / "evaluation.json").read_text())["detectors"][
        "this detector"
    ]
    axes = drawn("rates", shown(recorded)).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(names) == sorted(outcome["attacks"])
    points = [line for line in axes.lines if line.get_marker() == "o"]
    for name, line in zip(names, points, strict=True):
        assert np.asarray(line.get_xdata())[0] == outcome["attacks"][name]["flagged"]["value"]


def test_several_runs_and_trainings(recorded: Path, second: Path, trained: Path, tmp_path: Path) -> None:
    uncanny("figure", recorded, second, "comparison", "--out", tmp_path / "both.svg")
    assert (tmp_path / "both.svg").stat().st_size > 10_000
    refused = uncanny("figure", recorded, second, "walk", "--out", tmp_path, code=2).stderr
    assert "one run, and here are 2" in refused
    uncanny("figure", trained, "training", "--out", tmp_path)
    assert size_of(tmp_path / "training.png")[0] > 1000
    assert "a run, which is not here" in uncanny("figure", trained, "walk", code=2).stderr


def test_curvature_over_depth_is_drawn_of_its_table(tmp_path: Path) -> None:
    uncanny("measure", "--limit", "4", "--layer", "0,20", "--out", tmp_path / "curvature")
    before = (tmp_path / "curvature" / "depth.png").read_bytes()
    uncanny("figure", tmp_path / "curvature", "depth", "--out", tmp_path / "depth.png")
    assert size_of(tmp_path / "depth.png") == size_of(before)
    (tmp_path / "curvature" / "curvature.parquet").write_bytes(b"PAR1 no table")
    assert "cannot be read" in uncanny("figure", tmp_path / "curvature", "depth", code=2).stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("RUN", "wlak"), "did you mean 'walk'"),
        (("RUN",), "then the name of a figure"),
        (("walk",), "give the folder"),
        ((), "got nothing"),
        (("nowhere", "walk"), "nowhere is no folder"),
        (("RUN", "walk", "--out", "walk.jpg"), ".png, .svg, .pdf"),
        (("RUN", "walk", "--width", "1"), "--width takes"),
        (("RUN", "walk", "--dpi", "nan"), "--dpi takes"),
        (("RUN", "depth"), "depth cannot be drawn of"),
        (("RUN", "walk", "--out", "/proc/none/walk.png"), "cannot write"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [str(recorded) if word == "RUN" else word for word in words]
    assert message in " ".join(uncanny("figure", *asked, code=2).stderr.split())
    assert not list(tmp_path.iterdir())


def test_two_evaluations_are_not_guessed_between(recorded: Path, tmp_path: Path) -> None:
    import shutil

    for name in ("first", "other"):
        shutil.copytree(recorded / "detection", tmp_path / "detection" / name)
    shutil.copy(recorded / "plan.toml", tmp_path / "plan.toml")
    assert "2 evaluations" in reasons_against(shown(tmp_path))["roc"]
    assert not reasons_against(shown(tmp_path / "detection" / "other"))["roc"]


HOSTILE = ("$\\frac$", "<script>alert(1)</script>", "日本", "\x1b[31m", "שלום", "a" * 300)


def test_names_are_no_formulas_and_no_markup() -> None:
    pixels = np.zeros((1, 4, 4), np.float32)
    kept = {0: (["clean"], pixels), 2: (["ridge", "flip"], pixels + 0.5)}
    walk = {
        "log_relative_sharpness": np.array([0.0, -np.inf, np.nan]),
        "predicted": np.array([0.0, 1.0, 1.0]),
    }
    for name in HOSTILE:
        strip = image_strip(3, 0, kept, walk, [name, name])
        figure = draw_image_strips(f"{name} $\\frac$", [strip])
        assert "<script>" not in to_svg(figure)
    assert b"%PDF" in to_pdf(figure)[:8]
    assert to_png(figure)[1:4] == b"PNG"


def suffix_figure(texts: tuple[str, ...], width: float | None = None) -> Figure:
    tokens = tuple(TargetToken(text, float(number)) for number, text in enumerate(texts))
    pieces = tuple(Piece(text, True) for text in texts)
    line = SuffixLine(2, ("ridge", "flip"), pieces, tokens, 1.5, float("nan"), True, 2, (0, 3))
    return draw_suffixes("gcg", [SuffixStrip(0, texts[0], texts[0], (line,))], width)


def test_tokens_that_the_font_has_not_are_numbers() -> None:
    figure = suffix_figure((" one", "日", "[bold]", "$\\frac$", "x" * 200))
    written = [text.get_text() for text in figure.findobj(Text)]
    assert "⟨U+65E5⟩" in written
    assert "[bold]" in written
    assert any("… and 3 more" in one for one in written)
    as_file(figure, ".png")
    narrow = suffix_figure(tuple(f" word{number}" for number in range(30)), WIDTHS[0])
    assert narrow.get_size_inches()[0] == WIDTHS[0]
    assert narrow.get_size_inches()[1] > suffix_figure((" one",)).get_size_inches()[1]
