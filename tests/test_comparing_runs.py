"""uncanny compare: runs side by side, their differences with intervals, and the figure."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import uncannyvalley as uv
from test_curvature_commands import in_process
from uncannyvalley import InputError
from uncannyvalley.analysis.comparison import compare_runs
from uncannyvalley.analysis.contrast import contrast
from uncannyvalley.analysis.walked import Walked
from uncannyvalley.cli import printing
from uncannyvalley.run.request import Request
from uncannyvalley.storing.manifest import Manifest
from uncannyvalley.study.recording import record_with_controls
from uncannyvalley.trajectory import Trajectory

SMALL = Request(eps=0.3, step_size=0.05, steps=8, limit=24, keep_images=0)

REQUESTS = {
    "pgd": SMALL,
    "momentum": replace(SMALL, attack="momentum"),
    "fgsm": replace(SMALL, attack="fgsm", step_size=None, steps=None),
    "other_images": replace(SMALL, limit=20),
    "bare": replace(SMALL, measures=["margin", "log_relative_sharpness"]),
    "sharded": replace(SMALL, shard_examples=8),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each request, the first with its controls; ``sharded`` has lost its second shard."""
    root = tmp_path_factory.mktemp("runs")
    for name, request in REQUESTS.items():
        record_with_controls(request, root / name, controls=name == "pgd")
    manifest = Manifest.read(root / "sharded" / "manifest.json")
    del manifest.shards["part-00001.parquet"]
    manifest.write(root / "sharded" / "manifest.json")
    (root / "sharded" / "shards" / "part-00001.parquet").unlink()
    return {name: root / name for name in REQUESTS}


@pytest.fixture(scope="module")
def compared(runs: dict[str, Path]) -> dict:
    ended = in_process("compare", runs["pgd"], runs["momentum"], runs["fgsm"], "--controls", "--json")
    return json.loads(ended.stdout)


def trajectory_of(runs: dict[str, Path], name: str) -> Trajectory:
    return uv.open_run(runs[name]).trajectory


def test_phases_are_those_of_each_run_alone(compared: dict, runs: dict[str, Path]) -> None:
    assert [walk["name"] for walk in compared["walks"]] == ["pgd", "momentum", "fgsm"]
    for walk in compared["walks"]:
        alone = uv.phases(trajectory_of(runs, walk["name"])).summary().to_dict()["walks"][0]
        assert {**alone, "name": walk["name"]} == walk
    assert [one["name"] for one in compared["controls"]["pgd"]] == ["noise beside pgd", "assist beside pgd"]
    assert compared["controls"]["fgsm"] == []


def test_differences_are_those_of_the_images_that_both_classified_correctly(
    compared: dict, runs: dict[str, Path]
) -> None:
    first, second = uv.phases(trajectory_of(runs, "pgd")), uv.phases(trajectory_of(runs, "fgsm"))
    correct = (first.flip_step != 0) & (second.flip_step != 0)
    found = next(one for one in compared["contrasts"] if one["second"] == "fgsm")
    assert found["paired"]
    assert found["examples"] == [correct.sum()] * 2
    for name in ("depth", "ridge_height", "ridge_step"):
        ends = [float(np.median(one.column(name)[correct])) for one in (first, second)]
        assert [found["differences"][name][end] for end in ("first", "second")] == ends
        assert found["differences"][name]["difference"]["value"] == pytest.approx(ends[1] - ends[0])
    for name in ("climb", "descent_gini", "descent_norm"):
        change = second.column(name)[correct].mean() - first.column(name)[correct].mean()
        assert found["differences"][name]["difference"]["value"] == pytest.approx(change)
    both = correct & ~np.isnan(first.flip_step) & ~np.isnan(second.flip_step)
    assert found["differences"]["flip_step"]["examples"] == [both.sum()] * 2
    shown = found["differences"]["descent"]["difference"]
    assert shown["low"] < shown["value"] < shown["high"]


def test_measures_at_clean_flip_and_end(compared: dict, runs: dict[str, Path]) -> None:
    trajectory = trajectory_of(runs, "pgd")
    wrong = trajectory.column("adversarial")
    correct = wrong[:, 0] == 0
    values, wrong = trajectory.column("margin")[correct], wrong[correct] == 1
    found = compared["measures"]["margin"]["pgd"]
    flipped = wrong.any(axis=1)
    at_flip = [
        row[np.flatnonzero(is_wrong)[0]]
        for row, is_wrong in zip(values[flipped], wrong[flipped], strict=True)
    ]
    assert found["clean"]["value"] == np.median(values[:, 0])
    assert found["flip"]["value"] == np.median(at_flip)
    assert found["flip"]["value"] < 0 < found["clean"]["value"]
    assert found["end"]["value"] == np.median(values[:, -1])
    assert found["change"]["value"] == np.median(values[:, -1] - values[:, 0])
    assert found["change"]["low"] < found["change"]["value"] < found["change"]["high"]
    assert list(compared["measures"]) == [
        "log_relative_sharpness", "log_gini", "feature_norm", "margin", "confidence"
    ]  # fmt: skip


def test_pairing_narrows_the_interval_on_the_same_images(runs: dict[str, Path]) -> None:
    walks = [(name, uv.phases(trajectory_of(runs, name))) for name in ("pgd", "momentum")]
    columns = [(name, {one: found.column(one) for one in found.table.column_names}) for name, found in walks]
    paired = contrast(*columns, same_images=True).differences["change"].difference
    apart = contrast(*columns, same_images=False)
    assert not apart.paired
    unpaired = apart.differences["change"].difference
    assert paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)


def test_other_images_are_not_paired(runs: dict[str, Path]) -> None:
    shown = in_process("compare", runs["pgd"], runs["other_images"]).stdout
    assert "Not paired: 20 images (other images)" in shown
    assert "against" in shown


def test_runs_without_phases_are_compared_on_what_they_share(runs: dict[str, Path]) -> None:
    printed = json.loads(
        in_process("compare", runs["pgd"], runs["bare"], "--names", "full,bare", "--json").stdout
    )
    assert (
        "bare has no log_gini, feature_norm, log_geometry: of its phases only the flips are known."
        in printed["notes"]
    )
    assert "bare did not record confidence." in printed["notes"]
    assert list(printed["measures"]) == ["log_relative_sharpness", "margin"]
    full, bare = printed["walks"]
    assert bare["flipped"] == full["flipped"]
    assert bare["flip_step"] == full["flip_step"]
    assert bare["depth"]["value"] is None
    (found,) = printed["contrasts"]
    assert set(found["differences"]) == {"flipped", "flip_step"}
    shown = in_process("compare", runs["bare"], runs["pgd"]).stdout
    assert "of its phases only the flips are known" in " ".join(shown.split())


def test_unfinished_runs_are_compared_as_far_as_they_came(runs: dict[str, Path]) -> None:
    printed = json.loads(in_process("compare", runs["pgd"], runs["sharded"], "--json").stdout)
    assert "sharded is unfinished: 2 of 3 shards (16 of 24 images) are compared." in printed["notes"]
    assert "pgd and sharded are the same run (their keys agree)." in printed["notes"]
    (found,) = printed["contrasts"]
    assert found["paired"]
    assert found["examples"][0] <= 16
    assert found["differences"]["depth"]["difference"]["value"] == 0
    assert printed["runs"]["sharded"]["complete"] is False
    assert printed["decided"] == {}


def test_what_is_printed(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing.console, "_width", 100)
    shown = in_process(
        "compare", runs["pgd"], runs["fgsm"], "--measures", "entropy,margin", "--baseline", "fgsm"
    ).stdout
    for text in (
        "Differences from fgsm", "of it geometry", "Paired with fgsm over the images that both classified correctly",
        "entropy", "attack.settings.step_size", "--out comparison.png", "(baseline)", "misclassified",
    ):  # fmt: skip
        assert text in shown, text
    assert "feature_norm" not in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_many_runs_are_lines_of_a_narrow_table(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing.console, "_width", 80)
    several = [runs[name] for name in ("pgd", "momentum", "fgsm", "other_images", "bare")]
    names = ["--names", ",".join(f"a run with the long name {number}" for number in range(5))]
    shown = in_process("compare", *several, *names, "--controls").stdout
    assert "noise beside A" in shown
    assert "more figures of each" in shown
    assert "a run with the long name 4" in shown
    lines = shown.splitlines()
    assert any(line.startswith("E ") for line in lines)
    table = lines[next(place for place, line in enumerate(lines) if line.startswith("Phases")) :]
    assert max(map(len, table[: table.index("")])) <= 80


@pytest.mark.parametrize("out", ["picture.png", "picture.svg", "new/folder"])
def test_the_figure_is_written_whole(out: str, runs: dict[str, Path], tmp_path: Path) -> None:
    several = [runs[name] for name in ("pgd", "fgsm", "bare")]
    ended = in_process("compare", *several, "--out", tmp_path / out, "--json")
    path = Path(json.loads(ended.stdout)["files"]["figure"])
    assert path == tmp_path / (out if "." in out else f"{out}/comparison.png")
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    if path.suffix == ".svg":
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    else:
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 800
            assert len(set(picture.convert("L").tobytes())) > 50  # something is drawn


def test_mistakes_end_with_code_2(runs: dict[str, Path], tmp_path: Path) -> None:
    pgd, fgsm = runs["pgd"], runs["fgsm"]
    shutil.copytree(runs["fgsm"], tmp_path / "broken")
    (tmp_path / "broken" / "shards" / "part-00000.parquet").write_bytes(b"no table")
    for arguments, says in (
        ((pgd,), "2 to 12 run folders, got 1"),
        ((pgd,) * 13, "got 13"),
        ((pgd, fgsm, pgd.parent / "." / "pgd"), "the same folder"),
        ((pgd, tmp_path), "holds no run"),
        ((pgd, tmp_path / "nowhere"), "does not exist"),
        ((pgd, tmp_path / "broken"), "is damaged"),
        ((pgd, fgsm, "--names", "a"), "2 different names"),
        ((pgd, fgsm, "--names", "a,a"), "2 different names"),
        ((pgd, fgsm, "--baseline", "fgms"), "did you mean 'fgsm'"),
        ((pgd, fgsm, "--measures", "margins"), "did you mean 'margin'"),
        ((pgd, fgsm, "--axis", "steps"), "did you mean 'step'"),
        ((pgd, fgsm, "--out", tmp_path / "figure.pdf"), ".png or .svg"),
    ):
        assert says in in_process("compare", *arguments, code=2).stderr, says
    with pytest.raises(InputError, match="at least 2 runs"):
        compare_runs({"one": Walked(trajectory_of(runs, "pgd"), "images")})


def test_a_figure_that_cannot_be_drawn_is_an_error(runs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        request = replace(SMALL, measures=["loss"], seed=ord(name), limit=4)
        record_with_controls(request, tmp_path / name, controls=False)
    refused = in_process("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c.png", code=2)
    assert "none of these runs has" in refused.stderr
    assert not (tmp_path / "c.png").exists()
    assert "seed 97" in in_process("compare", tmp_path / "a", tmp_path / "b").stdout
