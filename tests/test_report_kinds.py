"""Pages of every kind of run: few rows, many restarts, missing measures, queries, prompts, nothing walked."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import uncannyvalley as uv
from folders import tiny_network, uncanny
from made import made
from pages import Reader, values_of, without_scripts
from uncannyvalley import data, zoo
from uncannyvalley.errors import InputError
from uncannyvalley.report.page_numbers import walk_numbers
from uncannyvalley.report.page_numbers.packing import unpack
from uncannyvalley.report.page_numbers.payload import payload_text
from uncannyvalley.report.pages.page import ReportPage
from uncannyvalley.report.pages.report_page import page_of_run, render
from uncannyvalley.report.pages.run_curves import run_curves
from uncannyvalley.report.pages.run_report import written_report
from uncannyvalley.run.folder import RunFolder, open_run
from uncannyvalley.trajectory import Trajectory

SMALL = ("--eps", "0.3", "--step-size", "0.1", "--steps", "5", "--limit", "6", "--keep-images", "2")

NEEDED = "log_relative_sharpness,log_gini,feature_norm,log_geometry"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_network(tmp_path_factory.mktemp("tiny"))


def recorded(network: str, out: Path, *options: str) -> RunFolder:
    uncanny("record", "--model", network, *SMALL, *options, "--out", out)
    return open_run(out)


def shown(run: RunFolder) -> tuple[ReportPage, dict[str, Any]]:
    page = page_of_run(run)
    return page, page.payload["runs"][0]


def walked(network: str, steps: int = 5, **how: Any) -> Trajectory:
    """PGD on six digits, in memory; settings of the attack among those of the recording."""
    digits = data.load("digits").first(6)
    settings = {name: how.pop(name) for name in ("stop", "random_start") if name in how}
    attack = uv.attacks.pgd(eps=0.3, step_size=0.1, **settings)
    return uv.record(zoo.load(network), digits[:], digits.labels, attack, steps=steps, **how)


def numbers(walk: Trajectory) -> dict[str, Any]:
    found = uv.phases(walk)
    return walk_numbers.run_numbers(found, run_curves(found))


def test_rows_that_nobody_recorded_are_left_out(network: str) -> None:
    """``every`` keeps the first, the last, and those between by the step; a random start is a row of its own."""
    walk = walked(network, every=2, random_start=True)
    one = numbers(walk)
    recorded_rows = np.flatnonzero(~np.isnan(walk.column("loss")).all(axis=0))
    assert len(recorded_rows) < walk.rows == 7
    assert one["steps"] == recorded_rows.tolist()
    assert not np.isnan(values_of(one, "loss")).any()
    assert [drawn["role"] for drawn in one["walks"]] == ["attack"]


def test_of_several_restarts_the_first_is_shown(network: str) -> None:
    walk = walked(network, random_start=True, restarts=2)
    first, second = (walk.column("log_relative_sharpness", restart) for restart in (0, 1))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(
        values_of(numbers(walk), "log_relative_sharpness"), first.astype(np.float32)
    )


def test_walks_that_stop_have_nothing_behind_it(network: str) -> None:
    walk = walked(network, steps=10, stop=0.1)
    one = numbers(walk)
    values = walk.column("log_relative_sharpness")
    assert np.isnan(values).any()
    rows = values_of(one, "log_relative_sharpness")
    np.testing.assert_array_equal(rows, values[:, one["steps"]].astype(np.float32))
    assert (values_of(one, "predicted")[np.isnan(rows)] == -1).all()


def test_long_walks_are_thinned_and_say_so(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = walked(network, steps=20)
    monkeypatch.setattr(walk_numbers, "MOST_VALUES", 60)
    one = numbers(walk)
    assert (one["steps"][0], one["steps"][-1]) == (0, 20)
    assert len(one["steps"]) * one["count"] <= 60 + one["count"]
    assert one["steps_left_out"] == 21 - len(one["steps"])
    expected = walk.column("loss")[:, one["steps"]].astype(np.float32)
    np.testing.assert_array_equal(values_of(one, "loss"), expected)


@pytest.mark.parametrize("more", ["", "loss", "confidence"])
def test_a_page_shows_what_was_recorded(network: str, tmp_path: Path, more: str) -> None:
    measures = ",".join(filter(None, (NEEDED, more)))
    run = recorded(network, tmp_path / "run", "--measures", measures)
    page, one = shown(run)
    assert set(one["walks"][0]["curves"]) == {"log_relative_sharpness", *filter(None, [more])}
    assert page.sections[0].figure_svg
    assert written_report(run) is not None
    Reader(without_scripts((tmp_path / "run" / "report.html").read_text()))


def test_without_what_phases_need_there_is_no_page(network: str, tmp_path: Path) -> None:
    run = recorded(network, tmp_path / "run", "--measures", "loss")
    assert not (tmp_path / "run" / "report.html").exists()
    with pytest.raises(InputError, match="phases need the measures log_relative_sharpness"):
        page_of_run(run)


def test_one_image(network: str, tmp_path: Path) -> None:
    _, one = shown(recorded(network, tmp_path / "run", "--limit", "1"))
    assert one["count"] == 1
    assert unpack(one["values"]["loss"]).shape == (1, 6)


def test_nothing_was_right_to_begin_with(network: str, tmp_path: Path) -> None:
    """A network that takes every digit for another: no image is walked from a right label."""
    path = Path(network.rpartition(":")[0])
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        path.read_text()
        .replace("4 * means)", "4 * means.roll(1, 0))")
        .replace("2 * means", "2 * means.roll(1, 0)")
    )
    run = recorded(f"{wrong}:build", tmp_path / "run", "--limit", "3")
    page, one = shown(run)
    assert unpack(one["per_example"]["correct"]).tolist() == [0, 0, 0]
    assert "None of the 3 images was classified correctly" in page.lead
    assert "nan" not in page.lead
    assert one["marks"] == {"ridge": None, "flip": None, "valley": None}
    render(page)


def test_queries_of_a_library(network: str, tmp_path: Path) -> None:
    pytest.importorskip("foolbox")
    out = tmp_path / "run"
    asked = (
        "--eps",
        "0.3",
        "--limit",
        "6",
        "--keep-images",
        "2",
        "--attack",
        "square",
        "--attack-arg",
        "queries=30",
    )
    uncanny("record", "--model", network, *asked, "--out", out)
    run = open_run(out)
    page, one = shown(run)
    assert one["observed"]
    assert one["axis"].startswith("query of the attack")
    assert "queries an image" in page.lead
    steps = [walk["curves"]["log_relative_sharpness"]["steps"][-1] for walk in one["walks"]]
    assert len(set(steps)) == 1  # controls are stretched over the attack's axis
    assert one["replay"] is None


def test_controls_that_are_not_begun_are_missing_alone(network: str, tmp_path: Path) -> None:
    run = recorded(network, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "controls" / "assist" / "shards")
    _, one = shown(open_run(run.path))
    assert [walk["name"] for walk in one["walks"]] == ["pgd", "noise"]


def test_vanished_sharpness_is_a_gap_in_curves() -> None:
    """log κ of −∞ is in the values, and no number of JSON."""
    walk = made([[1.0, 3.0, -np.inf], [1.0, 2.0, -np.inf]], [[False, True, True]] * 2)
    found = uv.phases(walk)
    one = walk_numbers.run_numbers(found, run_curves(found))
    assert one["walks"][0]["curves"]["log_relative_sharpness"]["median"] == [1.0, 2.5, None]
    assert values_of(one, "log_relative_sharpness")[:, 2].tolist() == [-np.inf] * 2
    assert payload_text({"runs": [one]})
