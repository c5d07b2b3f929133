"""``uncanny report``: what folders it takes, where the page goes, and what it says of folders that it can't take."""

import json
import shutil
from pathlib import Path

import pytest

from folders import tiny_network, uncanny, verify_lines
from pages import Reader, numbers_of, without_scripts
from uncannyvalley.report.pages import report_page
from uncannyvalley.report.pages.subjects import open_subjects

PLAN = """
shard_size = 4
keep_images = 2
controls = false
[[models]]
model = "tiny.py:build"
[[data]]
data = "digits"
limit = 8
[[attacks]]
attack = "pgd"
eps = [0.1, 0.2, 0.3]
steps = 3
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of two shards each."""
    place = tmp_path_factory.mktemp("report")
    tiny_network(place)
    (place / "plan.toml").write_text(PLAN)
    uncanny("run", place / "plan.toml", "--out", place / "study", "--no-pages")
    return place / "study"


@pytest.fixture
def copied(study: Path, tmp_path: Path) -> Path:
    shutil.copytree(study, tmp_path / "study")
    return tmp_path / "study"


def runs_of(study: Path) -> list[Path]:
    return sorted(one.parent for one in study.rglob("plan.toml") if one.parent != study)


def refused(*arguments: str | Path) -> str:
    ended = uncanny("report", *arguments, code=2)
    assert ended.stdout == ""
    return " ".join(ended.stderr.split())


def test_a_single_run_has_its_page_in_its_folder(copied: Path) -> None:
    run = runs_of(copied)[0]
    said = json.loads(uncanny("report", run, "--json").stdout)
    page = run / "report.html"
    assert said["page"] == str(page)
    assert said["bytes"] == page.stat().st_size
    assert said["runs"] == [str(run)]
    assert verify_lines(copied) == []
    beside = copied.parent / "beside" / "page.html"
    assert str(beside) in uncanny("report", run, "--html", beside).stdout.replace("\n", "")
    assert beside.read_bytes() == page.read_bytes()


def test_the_manifest_follows_a_page_that_is_written_again(copied: Path) -> None:
    run = runs_of(copied)[0]
    uncanny("report", run)
    uncanny("report", run, "--title", "Mine", "--html", run / "report.html")
    assert "<h1>Mine</h1>" in (run / "report.html").read_text()
    assert verify_lines(copied) == []
    (run / "report.html").write_text("gone")
    assert any("report.html" in line for line in verify_lines(copied))


def test_a_study_is_its_finished_runs(copied: Path, tmp_path: Path) -> None:
    first, *others = runs_of(copied)
    next((first / "shards").glob("*.parquet")).unlink()
    out = tmp_path / "page.html"
    said = json.loads(uncanny("report", copied, "--html", out, "--json").stdout)
    assert said["runs"] == list(map(str, others))
    assert said["notes"] == [f"Left out: {first} is unfinished: 1 of 2 shards are missing."]
    page = out.read_text()
    assert [one["title"] for one in numbers_of(page)["runs"]] == ["linf 0.2", "linf 0.3"]
    seen = Reader(without_scripts(page))
    for part in (
        "The runs beside each other",
        "Differences from linf 0.2",
        "8 pairs",
        "uncanny report study --html report.html",
    ):
        assert part in seen.text, part
    assert {"#r0", "#r1"} <= set(seen.addresses)


def test_of_many_runs_the_first_have_sections(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "MOST_SECTIONS", 2)
    out = tmp_path / "page.html"
    said = json.loads(uncanny("report", study, "--html", out, "--json").stdout)
    assert (len(said["runs"]), said["sections"]) == (3, 2)
    assert said["notes"] == ["2 of 3 runs have sections here, 1 more a row in the table alone."]
    seen = Reader(without_scripts(out.read_text()))
    assert "linf 0.3" in seen.text
    assert "#r2" not in seen.addresses


def test_runs_without_phases_have_a_row_alone(study: Path, tmp_path: Path) -> None:
    uncanny(
        "record", "--model", f"{study.parent / 'tiny.py'}:build", "--limit", "8", "--steps", "3", "--measures", "loss", "--no-controls",
        "--out", tmp_path / "bare",
    )  # fmt: skip
    out = tmp_path / "page.html"
    said = json.loads(uncanny("report", runs_of(study)[0], tmp_path / "bare", "--html", out, "--json").stdout)
    assert said["sections"] == 1
    assert "recorded no log_relative_sharpness, log_gini" in said["notes"][0]
    assert "phases need the measures" in refused(tmp_path / "bare")


def test_folders_that_are_refused(copied: Path, tmp_path: Path) -> None:
    run, other = runs_of(copied)[:2]
    assert "does not exist; give folders that uncanny record" in refused(tmp_path / "nowhere")
    assert "is none of the folders that a page is made of" in refused(tmp_path)
    assert "is the same folder as" in refused(run, f"{run}/", "--html", tmp_path / "a.html")
    assert "--html says where the page goes" in refused(run, other)
    assert "takes the name of a file, got the folder" in refused(run, "--html", tmp_path)
    assert "takes a .html or .htm file" in refused(run, "--html", tmp_path / "page.pdf")
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(run, "--html", tmp_path / "file" / "page.html")
    shard = next((run / "shards").glob("*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert shard.name in refused(run)
    shard.unlink()
    assert "is unfinished: 1 of 2 shards are missing; the command that began it goes on with it" in refused(
        run
    )
    assert not (run / "report.html").exists()


def test_a_training_and_runs_on_one_page(study: Path, tmp_path: Path) -> None:
    training = tmp_path / "training"
    uncanny("train", "--epochs", "2", "--limit", "200", "--out", training)
    out = tmp_path / "page.html"
    said = json.loads(uncanny("report", training, runs_of(study)[0], "--html", out, "--json").stdout)
    assert said["sections"] == 1
    seen = Reader(without_scripts(out.read_text()))
    for part in ("1 recorded run, 1 training", "Epochs", "objective", "Of 2 epochs"):
        assert part in seen.text, part
    assert list(open_subjects([str(training), str(runs_of(study)[0])]).runs) == ["pgd on digits"]
    (training / "log.csv").write_text("\n".join((training / "log.csv").read_text().splitlines()[:2]) + "\n")
    assert "is an unfinished training (1 of 2 epochs)" in refused(training, "--html", out)


def test_what_was_evaluated_and_bounded_in_a_run_is_on_its_page(copied: Path) -> None:
    run = runs_of(copied)[0]
    model = f"{copied.parent / 'tiny.py'}"
    tiny_network(copied.parent)
    uncanny("bound", run, "--model", f"{model}:build")
    uncanny("report", run)
    assert verify_lines(copied) == []
    subjects = open_subjects([str(run)])
    page = report_page.page_of_run(next(iter(subjects.runs.values())))
    assert len(page.bounds) == 1
    text = Reader(without_scripts((run / "report.html").read_text())).text
    assert page.bounds[0].title in text
    only = json.loads(
        uncanny("report", run / "bounds", "--html", copied.parent / "bounds.html", "--json").stdout
    )
    assert only["runs"] == []
    assert page.bounds[0].title in Reader(without_scripts((copied.parent / "bounds.html").read_text())).text
