"""Pages of real runs as a browser shows them: made, steered and read by the tests."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page

from uncannyvalley.report.page_numbers.packing import unpack
from uncannyvalley.report.pages.page import ReportPage
from uncannyvalley.report.pages.report_page import page_of_run, render
from uncannyvalley.run.folder import open_run

HOSTILE = "<script>alert(1)</script>"


def page_file(run: Path, to: Path, change: Callable[[ReportPage], ReportPage] = lambda page: page) -> Path:
    """Writes the page of a run, changed."""
    to.write_text(render(change(page_of_run(open_run(run)))), encoding="utf-8")
    return to


def hostile(page: ReportPage) -> ReportPage:
    """The same page with names that are markup wherever names stand."""
    runs = [run | {"class_names": [HOSTILE] * 10, "title": HOSTILE} for run in page.payload["runs"]]
    sections = [
        replace(one, title=HOSTILE, provenance={HOSTILE: HOSTILE}, command=HOSTILE) for one in page.sections
    ]
    payload = {**page.payload, "runs": runs}
    return replace(page, title=HOSTILE, lead=HOSTILE, command=HOSTILE, sections=sections, payload=payload)


def numbers(page: ReportPage, name: str) -> np.ndarray:
    """A packed array of the page's first run, such as ``per_example.height``."""
    found: Any = page.payload["runs"][0]
    for one in name.split("."):
        found = found[one]
    return unpack(found)


def part(page: Page, name: str) -> Any:
    """What stands in a part of the page's first run."""
    return page.locator(f'#r0 [data-part="{name}"]')


def rows_of(page: Page, data: str) -> list[dict[str, Any]]:
    """The rows of a data set of the chart of the walk, as they are drawn."""
    script = "name => uncannyPage.runs[0].chart.view.data(name).map(row => ({...row}))"
    found: list[dict[str, Any]] = page.evaluate(script, data)
    return found


def curve(page: Page, data: str, measure: str, value: str = "median", **of: str) -> np.ndarray:
    """One curve of a data set by step, NaN where it has a gap."""
    rows = [row for row in rows_of(page, data) if row["measure"] == measure and of.items() <= row.items()]
    rows.sort(key=lambda row: row["step"])
    return np.array([np.nan if row[value] is None else row[value] for row in rows])


def slide(page: Page, name: str, value: float) -> None:
    """Moves a slider as a reader does, and waits until the page has followed."""
    part(page, name).evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
    )
    settle(page)


def settle(page: Page) -> None:
    """Waits until what was asked for is drawn."""
    page.evaluate("() => uncannyPage.settled()")
