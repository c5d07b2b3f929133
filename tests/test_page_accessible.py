"""The page for every reader: axe on wide and narrow screens, light and dark; pages of several runs, of sections, of prompts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from chromium import chromium, opened
from folders import uncanny
from shown_pages import page_file, part, slide
from uncannyvalley.report.detectors.section import DetectionSection, ResultTable, RocLine, RocPanel
from uncannyvalley.report.pages.page import ReportPage
from uncannyvalley.report.proofs.section import BoundsSection

__all__ = ["chromium"]

NOT_SERIOUS = ("minor",)
FIGURE = "<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'/>"
TABLE = ResultTable("A table", ["attack", "flagged"], [["pgd", "41 %"]], "A note.")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run with logits and images, and one of another attack without."""
    folder = tmp_path_factory.mktemp("runs")
    common = ("--eps", "0.4", "--limit", "24")
    uncanny(
        "record", *common, "--steps", "8", "--step-size", "0.1", "--keep", "logits", "--out", folder / "pgd"
    )
    uncanny("record", *common, "--attack", "fgsm", "--keep-images", "0", "--out", folder / "fgsm")
    return [folder / "pgd", folder / "fgsm"]


@pytest.fixture(scope="module")
def both(runs: list[Path]) -> Path:
    file = runs[0].parent / "both.html"
    uncanny("report", *runs, "--html", file)
    return file


def faults(page: Page) -> list[tuple[str, str, str]]:
    """What axe holds against a page: rule, element and reason."""
    found = Axe().run(page).response
    assert found["testEngine"]["name"] == "axe-core"
    return [
        (one["id"], node["html"][:200], node["failureSummary"])
        for one in found["violations"]
        if one["impact"] not in NOT_SERIOUS
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing(both: Path, chromium: Browser, width: int, scheme: str) -> None:
    with opened(chromium, both, width, color_scheme=scheme) as page:
        assert faults(page) == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_axe_would_find_something(both: Path, chromium: Browser) -> None:
    with opened(chromium, both) as page:
        page.evaluate("() => document.querySelector('img.still, img').removeAttribute('alt')")
        page.evaluate("() => document.querySelector('#r0 input[type=search]').removeAttribute('id')")
        assert {rule for rule, _, _ in faults(page)} >= {"label"}


def test_several_runs_have_sections_of_their_own(both: Path, chromium: Browser) -> None:
    with opened(chromium, both) as page:
        assert page.get_by_role("navigation").get_by_role("link").count() == 2
        assert page.evaluate("() => uncannyPage.runs.map(one => one.run.walks[0].name)") == ["pgd", "fgsm"]
        other = page.locator('#r1 [data-part="step-value"]')
        before = other.inner_text()
        slide(page, "step", 3)
        assert part(page, "step-value").inner_text() == "3"
        assert other.inner_text() == before
        assert not page.locator('#r1 [data-part="temperature"]').is_visible()
        assert (
            "No image of this example was kept" in page.locator('#r1 [data-part="image-said"]').inner_text()
        )


def test_charts_have_the_width_of_the_page(both: Path, chromium: Browser) -> None:
    with opened(chromium, both) as page:
        for width in (700, 390, 1200):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(300)  # until the page has been told
            page.evaluate("() => uncannyPage.settled()")
            room, drawing = (part(page, "walk-chart").locator(one).bounding_box() for one in ("..", "svg"))
            assert room["width"] - 60 < drawing["width"] <= room["width"]


def with_sections(page: ReportPage) -> ReportPage:
    """The page with an evaluated detector and a bound."""
    rates = np.array([0.001, 0.01, 0.1, 1.0])
    lines = [
        RocLine("this detector", rates, np.sqrt(rates), (0.05, 0.3), True),
        RocLine("gini", rates, rates),
    ]
    detection = DetectionSection(
        title="A detector", lead="How well it does.", figure_svg=FIGURE, caption="Both axes are logarithmic.",
        doubts=["No attacker here knows the detector."], tables=[TABLE], provenance={"data": "digits"}, command="uncanny detect",
        panels=[RocPanel("attack by attack", lines)], promised=0.05, smallest=0.001,
    )  # fmt: skip
    steps = [
        {
            "step": step,
            "change": None if step == 0 else 0.1 * step,
            "certified": 1e6 * step,
            "estimated": 10.0 * step,
        }
        for step in range(5)
    ]
    bound = BoundsSection(
        title="The loss under its bound", lead="Never passed.", figure_svg=FIGURE, caption="A caption.", tables=[TABLE],
        assumptions=["exact arithmetic"], provenance={"model": "demo"}, command="uncanny bound", steps=steps,
    )  # fmt: skip
    return replace(page, detections=[detection], bounds=[bound])


def test_detectors_and_bounds_are_drawn(runs: list[Path], chromium: Browser, tmp_path: Path) -> None:
    file = page_file(runs[1], tmp_path / "sections.html", with_sections)
    with opened(chromium, file, 390) as page:
        for section in ("#detection-0", "#bounds-0"):
            assert page.locator(f"{section} svg path").count() > 2
            assert not page.locator(f"{section} img.still").is_visible()
        assert "this detector" in page.locator("#detection-0 svg").text_content()
        assert faults(page) == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


@pytest.mark.shared
def test_the_page_of_prompts(shared: Path, chromium: Browser, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("goal,target\nOnce upon a time there was a,dog\nTom and <b>Sue</b> went to the,park\n")
    uncanny(
        "record", "--model", f"hf-lm:{shared}/models/stories260k", "--prompts", prompts, "--attack-arg", "search_width=8",
        "--steps", "4", "--suffix", "! ! ! !", "--new-tokens", "3", "--out", tmp_path / "run",
    )  # fmt: skip
    with opened(chromium, tmp_path / "run" / "report.html") as page:
        assert page.get_by_text("One prompt at a time").is_visible()
        assert "Tom and <b>Sue</b> went to the" in page.locator("main").inner_text()
        slide(page, "step", 4)
        assert "loss of the target" in part(page, "readouts").inner_text()
        assert part(page, "step").get_attribute("aria-valuetext") == "step 4 of 4"
        assert part(page, "walk-chart").locator("svg path").count() > 20
        assert faults(page) == []
