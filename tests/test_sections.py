"""What evaluations, bounds and certificates leave on the disk, and the sections of pages that are made of it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect_cases import CLEAN, fit_demo, run
from folders import uncanny, verify_lines
from uncannyvalley.cli.detecting import evaluation_files
from uncannyvalley.detect.evaluation.outcome import Evaluation, plain
from uncannyvalley.detect.evaluation.stored import evaluation_of
from uncannyvalley.errors import InputError
from uncannyvalley.report.detectors.evaluation_tables import headline, shared_notes, terminal_tables
from uncannyvalley.report.detectors.loading import evaluations_below, load_detection, read_evaluation
from uncannyvalley.report.detectors.page_tables import more_tables
from uncannyvalley.report.detectors.section import render_detection
from uncannyvalley.report.proofs.loading import load_bounds, load_radii, proofs_below
from uncannyvalley.run.folder import open_run
from uncannyvalley.storing.stamped_json import read_stamped, write_stamped

NAME = "this detector"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run with its bounds, and what the command printed."""
    out = tmp_path_factory.mktemp("sections") / "run"
    uncanny("record", "--eps", "0.3", "--steps", "5", "--limit", "12", "--no-controls", "--out", out)
    return out, json.loads(uncanny("bound", out, "--json").stdout)


@pytest.fixture(scope="module")
def evaluated(
    recorded: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Evaluation]:
    """An evaluation in the run's folder, and the values in memory that it was written from."""
    out, kept = recorded[0] / "detection" / "demo", []
    detector = tmp_path_factory.mktemp("detector") / "demo.detector"
    fit_demo(detector)
    write = evaluation_files.write_evaluation

    def spy(found: Evaluation, *others: Any, **more: Any) -> dict[str, str]:
        kept.append(found)
        return write(found, *others, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_files, "write_evaluation", spy)
        run(
            "evaluate", detector, "--skip", CLEAN, "--limit", "80", "--eps", "0.2", "--attack", "fgsm", "--attack", "pgd:steps=4",
            "--baseline", "gini", "--fit-data", "digits", "--fit-limit", CLEAN, "--turns", "1", "--known", "0.1=0.05", "--out", out,
        )  # fmt: skip
    return out, kept[0]


def same(one: Any, other: Any) -> bool:
    """Equal as plain values, in which what is not finite is None."""
    return json.dumps(plain(one)) == json.dumps(plain(other))


def test_an_evaluation_comes_back_from_its_file(evaluated: tuple[Path, Evaluation]) -> None:
    out, found = evaluated
    stored = read_evaluation(out)
    assert same(stored.found, found)
    assert type(stored.found.detectors[NAME].attacks["fgsm"]) is type(found.detectors[NAME].attacks["fgsm"])
    assert list(stored.outcome.by_class) == list(found.detectors[NAME].by_class)
    assert stored.outcome.worst == found.detectors[NAME].worst
    none = evaluation_of(found.to_json() | {"prevalence": None})
    assert math.isnan(none.prevalence)


def test_the_page_of_the_file_is_the_page_that_was_written(evaluated: tuple[Path, Evaluation]) -> None:
    out, found = evaluated
    section = load_detection(out)
    assert render_detection(section) == (out / "report.html").read_text()
    outcome = found.detectors[NAME]
    tables = [
        *terminal_tables(found, NAME),
        *more_tables(outcome, read_evaluation(out).class_names, found.prevalence),
    ]
    assert [(one.title, one.rows) for one in section.tables] == [(one.title, one.rows) for one in tables]
    assert section.lead == " ".join(headline(outcome, found.prevalence))
    assert set(shared_notes(found)) <= set(section.doubts)
    assert any("--adaptive" in one for one in section.doubts)
    assert section.command.startswith("uncanny detect evaluate ")
    worst = next(line for line in section.panels[0].lines if line.strong)
    assert worst.title == outcome.worst
    assert np.array_equal(worst.tpr, np.array(outcome.attacks[worst.title].roc[1]))
    assert section.promised == outcome.fpr
    assert section.smallest == 1 / outcome.clean.right.out_of


def test_evaluations_of_a_run_are_found(evaluated: tuple[Path, Evaluation], tmp_path: Path) -> None:
    folder = evaluated[0].parents[1]
    assert evaluations_below(folder / "detection") == [evaluated[0] / "evaluation.json"]
    assert evaluations_below(tmp_path / "nothing") == []


def test_a_damaged_evaluation_is_refused(evaluated: tuple[Path, Evaluation], tmp_path: Path) -> None:
    content = (evaluated[0] / "evaluation.json").read_bytes()
    place = tmp_path / "evaluation.json"
    for at in range(0, len(content), len(content) // 40):
        place.write_bytes(flipped(content, at))
        with pytest.raises(InputError, match=r"evaluation\.json"):
            read_evaluation(place)
    place.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        read_evaluation(tmp_path)
    place.write_text(json.dumps({"detectors": {}}))
    with pytest.raises(InputError, match="no stamp"):
        read_evaluation(place)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("name",), "another", "none of its detectors"),
        (("detectors", NAME, "fpr"), "5 %", r"detectors.this detector.fpr must be a float, got '5 %'"),
        (("detectors", NAME, "attacks", "fgsm", "counted"), True, "counted must be a int"),
        (("detectors", NAME, "attacks", "fgsm", "roc"), [[0.1]], "roc must be a list of 2"),
        (("detectors", NAME, "by_class"), {"three": None}, "has a name that is no int"),
        (("detectors", NAME), {}, "this detector lacks fpr"),
        (("notes",), "many", "notes must be a list"),
        (("detectors",), ["x"], "detectors must be a mapping"),
    ],
)
def test_an_evaluation_that_is_none_is_named(
    evaluated: tuple[Path, Evaluation], tmp_path: Path, path: tuple[str, ...], value: Any, message: str
) -> None:
    entries = read_stamped(evaluated[0] / "evaluation.json", "")
    inside = entries
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value
    write_stamped(tmp_path / "evaluation.json", entries)
    with pytest.raises(InputError, match=message):
        read_evaluation(tmp_path)


def flipped(content: bytes, at: int) -> bytes:
    """One bit of another value."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_bounds_stay_with_their_run(recorded: tuple[Path, dict[str, Any]]) -> None:
    out, printed = recorded
    assert verify_lines(out) == []
    (section,) = proofs_below(out)
    assert section.steps == printed["steps"]
    assert section.command == f"uncanny bound {out} --json"
    assert section.provenance["key of the run"] == open_run(out).plan.key
    assert "never passed" in section.lead
    assert f"{printed['examples']} walks of 5 steps" in section.lead
    assert [row[0] for row in section.tables[0].rows] == ["1", "2", "3", "4", "5"]
    assert section.tables[0].rows[2][3] == f"{printed['steps'][2]['certified']:.3g}"
    assert "<svg" in section.figure_svg
    assert any("segment" in one for one in section.assumptions)
    uncanny("phases", out)
    uncanny("report", out)
    assert verify_lines(out) == []
    assert "bounds/bounds.json" in open_run(out).manifest(0).files
    assert section.lead[:40] in (out / "report.html").read_text()


def test_verify_finds_every_flipped_bit_of_the_bounds(recorded: tuple[Path, dict[str, Any]]) -> None:
    for name in ("bounds.json", "bounds.png"):
        place = recorded[0] / "bounds" / name
        content = place.read_bytes()
        for at in np.linspace(0, len(content) - 1, 12).astype(int).tolist():
            place.write_bytes(flipped(content, at))
            (line,) = verify_lines(recorded[0])
            assert name in line
            if name == "bounds.json":
                with pytest.raises(InputError, match=r"bounds\.json"):
                    load_bounds(place)
        place.unlink()
        assert verify_lines(recorded[0]) == [f"{place} is missing"]
        place.write_bytes(content)
    assert verify_lines(recorded[0]) == []


def test_bounds_do_not_speak_of_what_is_recorded_after_them(tmp_path: Path) -> None:
    out = tmp_path / "run"
    walk = (
        "--eps",
        "0.3",
        "--steps",
        "3",
        "--limit",
        "8",
        "--shard-size",
        "4",
        "--no-controls",
        "--out",
        out,
    )
    uncanny("record", *walk)
    uncanny("bound", out)
    (out / "shards" / "part-00001.parquet").unlink()
    uncanny("record", *walk)
    assert not (out / "bounds" / "bounds.json").exists()
    assert verify_lines(out) == []


def test_a_run_that_cannot_be_written_to_is_still_bounded(tmp_path: Path) -> None:
    out = tmp_path / "run"
    uncanny("record", "--eps", "0.3", "--steps", "2", "--limit", "4", "--no-controls", "--out", out)
    (out / "bounds").write_text("a file where the folder should be")
    ended = uncanny("bound", out)
    assert "loss change" in ended.stdout
    assert "not kept: cannot write" in " ".join(ended.stderr.split())


def test_bounds_of_a_fresh_walk_go_where_they_are_told(tmp_path: Path) -> None:
    asked = ("bound", "--model", "demo", "--limit", "4", "--steps", "2")
    uncanny(*asked, "--out", tmp_path / "here")
    section = load_bounds(tmp_path / "here")
    assert len(section.steps) == 2
    assert section.provenance["walk"] == "PGD, L2 ball of 0.5, 2 steps"
    assert json.loads(uncanny(*asked, "--json").stdout)["files"] == {}


def test_radii_come_back_with_their_infinities(tmp_path: Path) -> None:
    asked = ("certify", "--limit", "8", "--steps", "2", "--out", tmp_path, "--json")
    printed = json.loads(uncanny(*asked).stdout)
    entries = read_stamped(tmp_path / "radii.json", "")
    for row, kept in zip(printed["radii"], entries["radii"], strict=True):
        finite = [math.inf if one is None else one for one in kept["values"]]
        assert len(finite) == printed["correct"]
        nearest = np.quantile(finite, 0.5, method="nearest")
        assert row["q50"] == (None if math.isinf(nearest) else pytest.approx(nearest))
    section = load_radii(tmp_path)
    assert f"flipped {printed['violations']} of them inside it" in section.lead
    assert [row[:2] for row in section.tables[0].rows] == [
        [one["radius"], one["status"]] for one in printed["radii"]
    ]
    entries["radii"][-1] |= {"values": [None] * printed["correct"], "q50": None}
    write_stamped(tmp_path / "radii.json", entries)
    assert load_radii(tmp_path / "radii.json").tables[0].rows[-1][3] == "–"
    with pytest.raises(InputError, match="another kind of numbers"):
        load_bounds(tmp_path / "radii.json")


def test_an_estimate_alone_says_that_nothing_is_certified(tmp_path: Path) -> None:
    uncanny("certify", "--limit", "4", "--estimate-only", "--no-attack", "--out", tmp_path)
    section = load_radii(tmp_path)
    assert "No radius is certified" in section.lead
    assert [row[0] for row in section.tables[1].rows] == ["sampled"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    uncanny("certify", "--limit", "4", "--no-attack", "--out", tmp_path)
    entries = read_stamped(tmp_path / "radii.json", "")
    entries["about"]["model"] = "$\\frac$<script>alert(1)</script>"
    write_stamped(tmp_path / "radii.json", entries)
    section = load_radii(tmp_path)
    assert "<script>" not in section.figure_svg
    uncanny("report", tmp_path, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
