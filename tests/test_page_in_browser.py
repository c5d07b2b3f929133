"""The page of a real run, opened from disk in a browser without a network: what its parts show and do."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

import uncannyvalley as uv
from chromium import chromium, opened
from folders import uncanny
from shown_pages import HOSTILE, curve, hostile, numbers, page_file, part, rows_of, settle, slide
from uncannyvalley.analysis.curves import curve as curve_of
from uncannyvalley.report.charts import bundle
from uncannyvalley.report.pages.page import ReportPage
from uncannyvalley.report.pages.report_page import page_of_run
from uncannyvalley.run.folder import RunFolder, open_run

__all__ = ["chromium"]

LIMIT = 1e-4
EXAMPLES, STEPS = 60, 16


@dataclass(frozen=True)
class Recorded:
    """A run on digits, and its page on disk and as parts."""

    run: RunFolder
    file: Path
    page: ReportPage


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded") / "run"
    uncanny(
        "record", "--eps", "0.4", "--step-size", "0.04", "--steps", STEPS, "--limit", EXAMPLES, "--keep", "logits",
        "--keep-images", "12", "--out", folder,
    )  # fmt: skip
    run = open_run(folder)
    return Recorded(run, folder / "report.html", page_of_run(run))


@pytest.fixture(scope="module")
def shown(recorded: Recorded, chromium: Browser):
    """The page as its tests share it; each leaves it as it found it."""
    with opened(chromium, recorded.file) as page:
        yield page


def drawn_paths(page: Page) -> list[str]:
    """The paths of the chart of the walk, in no order: ticks may be drawn in any."""
    script = "paths => paths.map(path => path.getAttribute('d')).sort()"
    found: list[str] = part(page, "walk-chart").locator("svg path").evaluate_all(script)
    return found


def cells(page: Page, column: int) -> list[str]:
    return part(page, "chooser").locator(f"tbody tr > *:nth-child({column})").all_inner_texts()


def test_the_chart_draws_the_curves_of_the_run(shown: Page, recorded: Recorded) -> None:
    for measure in ("log_relative_sharpness", "loss", "confidence"):
        for walk in (recorded.run.trajectory, *recorded.run.controls().values()):
            drawn = curve(shown, "curves", measure, walk=walk.attack)
            np.testing.assert_allclose(drawn, curve_of(walk, measure).median, rtol=1e-4, atol=1e-4)
    marks = recorded.page.payload["runs"][0]["marks"]
    assert rows_of(shown, "phases") == [
        {"phase": "climb", "start": 0, "end": marks["flip"]},
        {"phase": "flip", "start": marks["flip"], "end": marks["valley"]},
        {"phase": "valley", "start": marks["valley"], "end": STEPS},
    ]
    assert len(drawn_paths(shown)) > 20
    assert not part(shown, "walk-chart").locator("img.still").is_visible()


@pytest.mark.parametrize("temperature", [0.1, 4.0, 10.0])
def test_the_temperature_moves_the_walk_as_python_replays_it(
    shown: Page, recorded: Recorded, temperature: float
) -> None:
    before = drawn_paths(shown)
    slide(shown, "temperature-slider", float(np.log10(temperature)))
    shown_at = shown.evaluate("() => uncannyPage.runs[0].temperature")
    again = uv.replay(recorded.run, temperature=shown_at)
    for measure in ("log_relative_sharpness", "loss", "confidence"):
        drawn = curve(shown, "curves", measure, walk="pgd")
        expected = curve_of(again, measure).median
        np.testing.assert_allclose(drawn, expected, rtol=LIMIT, atol=LIMIT)
        ghost = curve_of(recorded.run.trajectory, measure).median
        np.testing.assert_allclose(curve(shown, "ghost", measure), ghost, rtol=LIMIT, atol=LIMIT)
    assert drawn_paths(shown) != before

    found = uv.phases(again)
    right = found.flip_step != 0
    facts = part(shown, "temperature-facts").locator("tr td:last-child").all_inner_texts()
    assert facts[0] == f"{np.median(found.ridge_height[right]):.2f}".replace("-", "−")
    assert facts[1] == f"{np.median(found.depth[right]):.2f}".replace("-", "−")
    assert facts[2] == f"{100 * np.isfinite(found.valley_step[right]).mean():.0f} %"
    shares = {row["share"]: row["value"] for row in rows_of(shown, "shares") if row["step"] == STEPS}
    assert shares["log κ"] == pytest.approx(
        shares["Gini (confidence)"] + shares["norm"] + shares["geometry of W"], abs=LIMIT
    )

    part(shown, "temperature-reset").click()
    settle(shown)
    assert rows_of(shown, "ghost") == []
    assert drawn_paths(shown) == before


def test_a_walk_is_hidden_by_its_box(shown: Page) -> None:
    box = shown.get_by_role("checkbox", name="noise")
    box.uncheck()
    settle(shown)
    assert {row["walk"] for row in rows_of(shown, "curves")} == {"pgd", "assist"}
    box.check()
    settle(shown)
    assert {row["walk"] for row in rows_of(shown, "curves")} == {"pgd", "noise", "assist"}


def test_the_explorer_follows_its_slider(shown: Page, recorded: Recorded) -> None:
    table = numbers(recorded.page, "values.log_relative_sharpness")
    chosen = shown.evaluate("() => uncannyPage.runs[0].chosen")
    sources = set()
    for row in (0, 5, STEPS):
        slide(shown, "step", row)
        readout = part(shown, "readouts").locator("tr", has_text="log κ").locator("td").inner_text()
        assert readout == f"{table[chosen, row]:.3f} nats".replace("-", "−")
        assert part(shown, "step-value").inner_text() == str(row)
        assert part(shown, "step").get_attribute("aria-valuetext") == f"step {row} of {STEPS}"
        assert rows_of(shown, "rule") == [{"at": row}]
        sources.add(part(shown, "image-shown").get_attribute("src"))
    assert len(sources) > 1
    chances = shown.evaluate(
        "() => uncannyPage.runs[0].explorerCharts.bars.view.data('bars').map(bar => bar.probability)"
    )
    assert sum(chances) == pytest.approx(1)
    assert max(chances) == pytest.approx(numbers(recorded.page, "values.confidence")[chosen, STEPS], abs=1e-5)


def test_search_filters_and_order(shown: Page, recorded: Recorded) -> None:
    search, found = part(shown, "search"), part(shown, "found")
    assert found.inner_text().endswith(f"of {EXAMPLES}")
    labels, ids = (numbers(recorded.page, f"per_example.{name}") for name in ("label", "id"))
    search.fill("3")
    assert found.inner_text().endswith(f"of {((labels == 3) | (ids == 3)).sum()}")
    assert all(one == "3" or two == "3" for one, two in zip(cells(shown, 1), cells(shown, 2), strict=True))
    search.fill("41")
    assert cells(shown, 1) == ["41"]
    search.fill("no such example")
    assert cells(shown, 1) == []
    assert found.inner_text() == "none found"
    search.fill("")

    shown.get_by_label("have images").check()
    pictured = {item["example"] for item in recorded.page.payload["runs"][0]["pictures"]["items"]}
    assert {int(one) for one in cells(shown, 1)} == pictured
    shown.get_by_label("have images").uncheck()

    part(shown, "chooser").get_by_role("button", name="Depth").click()
    depth = numbers(recorded.page, "per_example.depth")
    first = [float(one.replace("−", "-")) for one in cells(shown, 4)]
    np.testing.assert_allclose(first, np.sort(depth)[::-1][: len(first)], atol=0.006)
    part(shown, "next").click()
    assert float(cells(shown, 4)[0].replace("−", "-")) <= first[-1]
    part(shown, "chooser").get_by_role("button", name="Depth").click()
    assert float(cells(shown, 4)[0].replace("−", "-")) == pytest.approx(depth.min(), abs=0.006)
    assert part(shown, "chooser").locator("th[aria-sort=ascending]").inner_text().startswith("Depth")


def test_a_chosen_example_is_shown_everywhere(shown: Page, recorded: Recorded) -> None:
    part(shown, "search").fill("")
    button = part(shown, "chooser").locator("button.choose").nth(2)
    example = int(button.inner_text())
    button.click()
    settle(shown)
    assert f"Example {example}," in part(shown, "chosen-title").inner_text()
    place = numbers(recorded.page, "per_example.id").tolist().index(example)
    drawn = curve(shown, "chosen", "loss", "value")
    np.testing.assert_allclose(drawn, numbers(recorded.page, "values.loss")[place], rtol=1e-6)
    assert part(shown, "chooser").locator("button[aria-pressed=true]").inner_text() == str(example)


def downloaded(page: Page, button: str) -> list[dict[str, str]]:
    with page.expect_download() as waiting:
        part(page, button).click()
    return list(csv.DictReader(io.StringIO(waiting.value.path().read_text(encoding="utf-8-sig"))))


def test_downloads_hold_the_numbers_shown(shown: Page, recorded: Recorded) -> None:
    rows = downloaded(shown, "save-curves")
    expected = curve_of(recorded.run.trajectory, "loss")
    found = [row for row in rows if row["walk"] == "pgd" and row["measure"] == "loss"]
    for name, values in (("median", expected.median), ("low_10", expected.low), ("high_90", expected.high)):
        np.testing.assert_allclose([float(row[name]) for row in found], values, rtol=1e-4, atol=1e-6)
    examples = downloaded(shown, "save-examples")
    assert len(examples) == EXAMPLES
    heights = numbers(recorded.page, "per_example.height")
    order = np.argsort([int(row["id"]) for row in examples])
    np.testing.assert_allclose(
        [float(examples[place]["ridge_height"]) for place in order], heights, rtol=1e-6, atol=1e-9
    )

    slide(shown, "temperature-slider", 0.5)
    rows = downloaded(shown, "save-curves")
    assert {row["temperature"] for row in rows if row["walk"] == "noise"} == {"1"}
    (heat,) = {float(row["temperature"]) for row in rows if row["walk"] == "pgd"}
    again = curve_of(uv.replay(recorded.run, temperature=heat), "loss").median
    found = [row for row in rows if row["walk"] == "pgd" and row["measure"] == "loss"]
    np.testing.assert_allclose([float(row["median"]) for row in found], again, rtol=LIMIT, atol=LIMIT)
    part(shown, "temperature-reset").click()
    settle(shown)


def test_the_keyboard_alone_reaches_everything(recorded: Recorded, chromium: Browser) -> None:
    with opened(chromium, recorded.file) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.className") == "skip"
        reached = set()
        for _ in range(90):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate("() => document.activeElement.dataset.part ?? document.activeElement.className")
            )
            if page.evaluate("() => document.activeElement.dataset.part") == "temperature-slider":
                page.keyboard.press("End")
            if page.evaluate("() => document.activeElement.dataset.part") == "step":
                page.keyboard.press("ArrowRight")
        settle(page)
        wanted = {
            "temperature-slider",
            "temperature-reset",
            "save-curves",
            "save-examples",
            "search",
            "choose",
            "next",
            "step",
        }
        assert wanted <= reached
        assert page.evaluate("() => uncannyPage.runs[0].temperature") == pytest.approx(10)
        assert part(page, "temperature-slider").get_attribute("aria-valuetext") == "temperature 10.00"


def test_names_that_are_markup_stay_text(recorded: Recorded, chromium: Browser, tmp_path: Path) -> None:
    file = page_file(recorded.run.path, tmp_path / "hostile.html", hostile)
    with opened(chromium, file) as page:
        assert page.locator("h1").inner_text() == HOSTILE
        assert HOSTILE in part(page, "chosen-title").inner_text()
        assert HOSTILE in cells(page, 2)
        assert HOSTILE in part(page, "readouts").inner_text()
        assert page.locator("main script").count() == 0
        names = downloaded(page, "save-examples")
        assert {row["class"] for row in names} == {HOSTILE}


def test_without_the_drawing_library_the_page_stands_still(
    recorded: Recorded, chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "javascript_bundle", lambda: None)
    file = page_file(recorded.run.path, tmp_path / "still.html")
    assert file.stat().st_size < recorded.file.stat().st_size - 800_000
    with opened(chromium, file) as page:
        assert "pip install 'uncannyvalley[report]'" in page.locator(".needs").inner_text()
        assert part(page, "walk-chart").locator("img.still").is_visible()
        part(page, "search").fill("41")
        assert cells(page, 1) == ["41"]
        slide(page, "temperature-slider", 1.0)
        facts = part(page, "temperature-facts").locator("tr").first.locator("td").all_inner_texts()
        assert facts[0] != facts[1]


def test_without_scripts_figure_and_tables_are_there(recorded: Recorded, chromium: Browser) -> None:
    with opened(chromium, recorded.file, java_script_enabled=False) as page:
        assert part(page, "walk-chart").locator("img.still").is_visible()
        assert page.get_by_text("Scripts are off").is_visible()
        assert page.get_by_role("table").count() == 2
        assert not part(page, "chooser").is_visible()


def test_a_browser_that_cannot_run_the_scripts_gets_what_stands_still(
    recorded: Recorded, chromium: Browser
) -> None:
    page = chromium.new_page(offline=True)
    page.add_init_script("delete window.DecompressionStream")
    page.goto(recorded.file.as_uri())
    page.get_by_text("this browser cannot run them").wait_for(state="visible")
    assert not part(page, "chooser").is_visible()
    assert part(page, "walk-chart").locator("svg:visible, img.still:visible").count() == 1
    page.close()


def test_no_script_but_the_pages_own_may_run(recorded: Recorded, chromium: Browser) -> None:
    def add_one() -> None:
        with opened(chromium, recorded.file) as page:
            page.evaluate(
                """() => {
                  const script = document.createElement("script");
                  script.textContent = "window.foreign = true";
                  document.body.append(script);
                }"""
            )
            page.wait_for_timeout(200)  # until the console has heard of it
            assert page.evaluate("() => window.foreign") is None

    with pytest.raises(AssertionError, match="Content Security Policy"):
        add_one()
