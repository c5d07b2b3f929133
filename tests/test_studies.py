"""Studies: a plan file's runs in one folder, which grows, is shown and verified as a whole, and refuses what is not its own."""

import json
import shutil
from pathlib import Path

import pytest

import uncannyvalley as uv
from test_curvature_commands import in_process
from uncannyvalley import InputError

PLAN = """
shard_size = 6
seeds = {seeds}
[[data]]
data = "digits"
limit = 12
[[attacks]]
attack = ["pgd", "momentum"]
eps = 0.3
steps = 3
"""


def plan_file(folder: Path, seeds: str = "[0]") -> Path:
    path = folder / "plan.toml"
    path.write_text(PLAN.replace("{seeds}", seeds))
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    in_process("run", plan_file(folder), "--out", folder / "out", "--no-pages")
    return folder / "out"


@pytest.fixture
def copied(study: Path, tmp_path: Path) -> Path:
    shutil.copytree(study, tmp_path / "out")
    return tmp_path / "out"


def faults(path: Path) -> list[str]:
    return [one.message for one in uv.verify(path)]


def test_a_study_is_a_run_folder_for_each_cell(study: Path) -> None:
    opened = uv.open_study(study)
    assert [dict(one.labels) for one in opened.runs] == [
        {"model": "demo", "data": "digits-12", "attack": f"{name}-0.3-3steps", "measures": "all", "seed": "0"}
        for name in ("pgd", "momentum")
    ]
    for one in opened.runs:
        alone = uv.open_run(one.run.path)
        assert alone.plan.recording.seed == 0
        assert alone.trajectory.column("loss").shape == (12, 4)
        assert list(alone.controls()) == ["noise", "assist"]
    assert faults(study) == []


def test_show_counts_shards_and_rates(study: Path) -> None:
    shown = json.loads(in_process("show", study, "--json").stdout)
    assert (shown["complete"], shown["shards"], shown["done"], shown["failed"]) == (True, 12, 12, {})
    assert [one["state"] for one in shown["runs"]] == ["complete"] * 2
    assert all(one["rate"] > 0 for one in shown["runs"])
    assert "2 runs, 12 of 12 shards done, 0 failed" in in_process("show", study).stdout


def test_the_same_plan_does_nothing_and_says_so(copied: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    ended = in_process("run", plan_file(copied.parent), "--out", copied, "--no-pages")
    assert "all 12 shards are there already: nothing to record" in ended.stdout.replace("\n", " ")
    assert before == {path: path.stat().st_mtime_ns for path in copied.rglob("*")}


def test_a_study_grows_and_never_shrinks(copied: Path) -> None:
    key = uv.open_study(copied).key
    grown = in_process("run", plan_file(copied.parent, "[0, 1]"), "--out", copied, "--no-pages", "--json")
    assert json.loads(grown.stdout)["recorded"] == 12
    assert json.loads(grown.stdout)["found"] == 12
    assert len(uv.open_study(copied).runs) == 4
    assert uv.open_study(copied).key != key
    assert faults(copied) == []
    refused = in_process("run", plan_file(copied.parent, "[1]"), "--out", copied, code=2)
    assert "2 of its 4 runs are not in this plan" in refused.stderr
    assert len(uv.open_study(copied).runs) == 4
    in_process("run", plan_file(copied.parent, "[1]"), "--out", copied, "--no-pages", "--overwrite")
    assert [one.labels["seed"] for one in uv.open_study(copied).runs] == ["1", "1"]


def test_pages_are_drawn_once(copied: Path) -> None:
    plan = plan_file(copied.parent)
    in_process("run", plan, "--out", copied)
    pages = sorted(copied.rglob("report.html"))
    assert len(pages) == 2
    before = [page.stat().st_mtime_ns for page in pages]
    in_process("run", plan, "--out", copied)
    assert before == [page.stat().st_mtime_ns for page in pages]
    assert faults(copied) == []


def test_a_part_leaves_the_rest_to_others(tmp_path: Path, study: Path) -> None:
    plan, out = plan_file(tmp_path), tmp_path / "out"
    in_process("run", plan, "--out", out, "--part", "2/3")
    shown = json.loads(in_process("show", out, "--json").stdout)
    assert (shown["done"], shown["complete"]) == (4, False)
    assert len([one for one in faults(out) if one.endswith("is missing")]) == 8
    for part in ("1/3", "3/3"):
        in_process("run", plan, "--out", out, "--part", part)
    assert faults(out) == []
    whole = in_process("run", plan, "--out", out, "--no-pages", "--json")
    assert json.loads(whole.stdout)["recorded"] == 0
    assert not list(out.rglob("manifest.part-*"))
    for one, other in zip(uv.open_study(out).runs, uv.open_study(study).runs, strict=True):
        assert one.run.trajectory.table.equals(other.run.trajectory.table)


def test_verify_names_what_is_lost_or_foreign(copied: Path) -> None:
    pgd, momentum = (one.run.path for one in uv.open_study(copied).runs)
    shutil.rmtree(Path(str(momentum)))
    shutil.rmtree(Path(str(pgd)) / "controls" / "noise")
    foreign = copied / "model=demo" / "data=digits-12" / "attack=other" / "measures=all" / "seed=0"
    foreign.mkdir(parents=True)
    found = faults(copied)
    assert len(found) == 3
    for place, what in (
        (momentum, "missing"),
        (pgd / "controls" / "noise", "missing"),
        (foreign, "no run of this study"),
    ):
        assert any(str(place) in one and what in one for one in found), (place, found)
    ended = in_process("verify", copied, code=1)
    assert len(ended.stdout.splitlines()) == 3
    assert len(json.loads(in_process("verify", copied, "--json", code=1).stdout)["faults"]) == 3


def test_mistakes_end_with_code_2(copied: Path, tmp_path: Path) -> None:
    plan = plan_file(tmp_path)
    for arguments, says in (
        (("--part", "0/3"), "1 ≤ K ≤ N"),
        (("--part", "third"), "such as 3/40"),
        (("--part", "1/2", "--overwrite"), "would delete what other parts have done"),
        (("--engine", "rai"), "did you mean 'ray'"),
        (("--workers", "2"), "goes with --engine ray"),
        (("--device", "gpu7"), "cannot be used here"),
    ):
        assert says in in_process("run", plan, "--out", tmp_path / "new", *arguments, code=2).stderr, says
        assert not (tmp_path / "new").exists()
    assert "does not exist" in in_process("verify", tmp_path / "nowhere", code=2).stderr
    assert "is a study of 2 runs; give one of them" in in_process("phases", copied, code=2).stderr
    assert "give one of them" in in_process("record", "--out", copied, code=2).stderr
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    assert "holds no run" in in_process("run", plan, "--out", tmp_path / "thesis", code=2).stderr


def test_a_study_in_an_object_store_is_a_study(tmp_path: Path, study: Path) -> None:
    plan, url = plan_file(tmp_path), "memory://studies/first"
    assert json.loads(in_process("run", plan, "--out", url, "--json").stdout)["recorded"] == 12
    assert json.loads(in_process("run", plan, "--out", url, "--json").stdout)["recorded"] == 0
    assert [one.message for one in uv.verify(url)] == []
    for one, other in zip(uv.open_study(url).runs, uv.open_study(study).runs, strict=True):
        assert one.run.trajectory.table.equals(other.run.trajectory.table)
        assert set(one.run.images()) == set(other.run.images())
    shard = uv.open_study(url).runs[1].run.shard(1)
    shard.write_bytes(shard.read_bytes()[:-1])
    assert [one.message for one in uv.verify(url)] == [
        f"{shard} is damaged: its content and the SHA-256 in it disagree"
    ]
    assert json.loads(in_process("run", plan, "--out", url, "--json").stdout)["recorded"] == 1
    assert [one.message for one in uv.verify(url)] == []


def test_a_damaged_plan_of_a_study_is_refused(copied: Path) -> None:
    path = copied / "plan.toml"
    path.write_bytes(path.read_bytes().replace(b"# The runs", b"# the runs"))
    with pytest.raises(InputError, match="was damaged or edited"):
        uv.open_study(copied)
    assert len(faults(copied)) == 1
