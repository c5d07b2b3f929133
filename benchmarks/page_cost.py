"""What the page of a run costs: seconds to make, bytes, and seconds until a browser has drawn it.

    python benchmarks/page_cost.py [--sizes 100 1000 10000] [--cache build/page_cost] [--opened 3] [--colour]

Each run is PGD in 40 steps (41 rows), recorded by ``uncanny record`` on digits with fresh noise, without and with the
logits of its ten classes, with images of 64 examples and whole walks of 8. Folders are kept in ``--cache`` and used
again. ``--colour`` adds 1 000 shared CIFAR-10 images of 3 x 32 x 32 (UNCANNY_SHARED, default ../shared), whose pictures
are the largest that are not reduced.

    made    reading the run's folder, all its numbers, and the page as text; once, after the first page of the process
    opened  from the address to the last chart drawn, offline, from disk: median over fresh tabs of headless Chromium
    busy    CPU seconds of that tab's main thread until then, which other processes on the machine do not lengthen

Goals: 6 MB for 1 000 examples, 3 s to open 10 000.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from timing import console

from uncannyvalley import data
from uncannyvalley.report.pages.report_page import page_of_run, render
from uncannyvalley.run.folder import open_run

ATTACK = ("--steps", "40", "--no-controls", "--keep-images", "64")
MEASURES = "log_relative_sharpness,log_gini,feature_norm,log_geometry,loss,confidence,distance_linf"
NOISE = 0.03
SELECTED = "html.ready"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
MEGABYTE = 1e6


def noisy_digits(place: Path, count: int) -> Path:
    """``count`` handwritten digits, each with noise of its own."""
    path = place / f"digits-{count}.npz"
    if not path.exists():
        digits = data.load("digits")
        rows = np.arange(count) % len(digits)
        drawn = np.random.default_rng(0).normal(0, NOISE, (count, *digits.pixels.shape[1:]))
        noisy = np.clip(digits.pixels[rows] + drawn, 0, 1).astype(np.float32)
        np.savez_compressed(path, x=noisy, y=digits.labels.numpy()[rows])
    return path


def recorded(place: Path, name: str, *asked: str) -> Path:
    """The run of that name, recorded now or before."""
    out = place / name
    command = [
        sys.executable,
        "-m",
        "uncannyvalley",
        "record",
        *asked,
        *ATTACK,
        "--measures",
        MEASURES,
        "--out",
        str(out),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def digit_runs(place: Path, sizes: Sequence[int]) -> Iterator[tuple[str, Path]]:
    ball = ("--eps", "0.4", "--step-size", "0.02")
    for count in sizes:
        images = f"npz:{noisy_digits(place, count)}"
        for keep in ("measures", "logits"):
            kept = ("--keep", "logits") if keep == "logits" else ()
            title = f"{count} digits{', logits' if kept else ''}"
            yield title, recorded(place, f"{count}-{keep}", "--data", images, *ball, *kept)


def colour_runs(place: Path) -> Iterator[tuple[str, Path]]:
    shared = Path(os.environ.get("UNCANNY_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    asked = (
        "--model", f"{shared}/models/load_reference.py:load", "--model-arg", "name=cifar10_conv_small_pgd", "--data",
        f"parquet:{shared}/data/cifar10/train.parquet", "--limit", "1000", "--keep", "logits",
    )  # fmt: skip
    yield "1000 CIFAR-10 images, logits", recorded(place, "colour", *asked)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium; None where there is none, or no Playwright."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        yield None
        return
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def opened(chromium: Any, page: Path) -> tuple[float, float]:
    """Seconds from the address to the last chart, and CPU seconds of the main thread."""
    tab = chromium.new_context(offline=True, viewport={"width": 1440, "height": 900}).new_page()
    metrics = tab.context.new_cdp_session(tab)
    metrics.send("Performance.enable", {"timeDomain": "threadTicks"})
    started = time.perf_counter()
    tab.goto(page.resolve().as_uri())
    tab.wait_for_selector(SELECTED, state="attached", timeout=120_000)
    seconds = time.perf_counter() - started
    told = {one["name"]: one["value"] for one in metrics.send("Performance.getMetrics")["metrics"]}
    tab.context.close()
    return seconds, told["TaskDuration"]


def measured(title: str, folder: Path, chromium: Any, times: int) -> list[str]:
    """A row of the table."""
    started = time.perf_counter()
    page = page_of_run(open_run(folder))
    text = render(page)
    made = time.perf_counter() - started
    path = folder.parent / f"{folder.name}.html"
    path.write_text(text, encoding="utf-8")
    run = page.payload["runs"][0]
    replayed = run["replay"]["logits"]["shape"][0] if run["replay"] else 0
    times_taken = [opened(chromium, path) for _ in range(times)] if chromium else []
    medians = [f"{statistics.median(one):.2f}" for one in zip(*times_taken, strict=True)] or ["—", "—"]
    return [
        title, f"{len(text.encode()) / MEGABYTE:.2f}", f"{_size(run['values']):.2f}", f"{_size(run['replay']):.2f}",
        f"{_size(run['pictures']):.2f}", str(replayed or "—"), f"{made:.2f}", *medians,
    ]  # fmt: skip


def _size(part: Any) -> float:
    """Megabytes that a part of the numbers takes on the page."""
    return len(json.dumps(part)) / MEGABYTE if part else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--cache", type=Path, default=Path("build/page_cost"))
    parser.add_argument("--opened", type=int, default=3, help="times that each page is opened")
    parser.add_argument("--colour", action="store_true", help="also 1 000 CIFAR-10 images")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    table = Table(title="Pages of PGD in 41 rows, images of 64 examples")
    table.add_column("run")
    for heading in (
        "MB",
        "of it values",
        "logits",
        "pictures",
        "replayed",
        "made, s",
        "opened, s",
        "busy, s",
    ):
        table.add_column(heading, justify="right")
    runs = [
        *digit_runs(options.cache, options.sizes),
        *(colour_runs(options.cache) if options.colour else ()),
    ]
    render(page_of_run(open_run(runs[0][1])))  # imports, and the drawing library
    with browser() as chromium:
        for title, folder in runs:
            table.add_row(*measured(title, folder, chromium, options.opened))
    console().print(table)


if __name__ == "__main__":
    main()
