"""``uncanny replay``: run folders under other heads, from the command line and in Python, with nothing but the folder."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import uncannyvalley as uv
from folders import uncanny
from replay_cases import assert_same_columns
from uncannyvalley.run.request import Request
from uncannyvalley.study.recording import record_with_controls
from uncannyvalley.trajectory import Trajectory

NETWORK = """
import torch
from uncannyvalley import zoo


def build(temperature: float = 1.0):
    net = zoo.load("demo")
    head = list(net.modules())[-1]
    with torch.no_grad():
        head.weight /= temperature
        head.bias /= temperature
    return net
"""
IMAGES = 96


def recorded(out: Path, *, controls: bool = True, **more: Any) -> Path:
    """A run as ``uncanny record`` writes it, without the page, which no replay reads."""
    wanted = {
        "limit": IMAGES,
        "eps": 0.4,
        "step_size": 0.04,
        "steps": 10,
        "keep_images": 0,
        "shard_examples": 36,
    } | more
    request = Request(data="digits", **wanted)
    run, _ = record_with_controls(request, out, controls=controls)
    return Path(str(run.path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a network of the user's, whose file is gone: one with features, and of the same network with W/4 one without."""
    folder = tmp_path_factory.mktemp("replays")
    network = folder / "network.py"
    network.write_text(NETWORK)
    recorded(folder / "run", model=f"{network}:build", keep="features")
    recorded(folder / "hot", model=f"{network}:build", model_arguments={"temperature": "4"})
    network.unlink()
    return folder


def test_shards_are_replayed_as_one_walk(folder: Path) -> None:
    run = uv.open_run(folder / "run")
    assert len(run.finished_shards()) == 3
    replayed = uv.replay(folder / "run", temperature=2.5)
    assert_same_columns(
        replayed, uv.replay(run.trajectory, temperature=2.5, recorded_head=run.head()), atol=1e-12
    )
    assert_same_columns(uv.replay(run, temperature=1), run.trajectory, atol=1e-12)
    assert not {"logits", "features"} & set(replayed.table.column_names)


def test_a_walk_that_asks_no_network_is_the_one_of_the_changed_network(folder: Path) -> None:
    """Noise goes where it goes: its replay at T = 4 is what recording the network with W/4 gave."""
    noise = uv.open_run(folder / "run").control_folders()["noise"]
    replayed = uv.replay(noise, temperature=4)
    recorded = uv.open_run(folder / "hot").controls()["noise"]
    assert_same_columns(replayed, recorded, atol=5e-5)


def test_an_attack_on_the_changed_network_takes_another_path(folder: Path) -> None:
    """What the command warns of: the same steps at first, other ones later."""
    replayed = uv.replay(folder / "run", temperature=4)
    recorded = uv.open_run(folder / "hot").trajectory
    off = np.abs(replayed.column("log_relative_sharpness") - recorded.column("log_relative_sharpness"))
    assert off[:, 0].max() < 1e-4
    assert np.median(off[:, -1]) > 1e-3


def test_recorded_and_replayed_stand_side_by_side(folder: Path) -> None:
    printed = uncanny("replay", folder / "run", "--temperature", "4").output
    assert re.search(r"recorded +T = 4\n", printed)
    of_recorded = uv.phases(uv.open_run(folder / "run").trajectory).summary().cells()
    of_replayed = uv.phases(uv.replay(folder / "run", temperature=4)).summary().cells()
    for (title, recorded), (_, replayed) in zip(of_recorded, of_replayed, strict=True):
        assert re.search(
            rf"^{re.escape(title)} +{re.escape(recorded[0])} +{re.escape(replayed[0])}$",
            printed,
            re.MULTILINE,
        )
    assert "assist" in printed.partition("Controls")[2]
    assert "This replays the recorded path" in printed
    again = next(
        line for line in printed.splitlines() if line.startswith("uncanny record --model FILE.py:build")
    )
    assert "--keep features --out run-changed-head" in again


def test_each_temperature_has_a_line_and_a_curve(folder: Path, tmp_path: Path) -> None:
    ended = uncanny("replay", folder / "run", "--temperatures", "0.25, 1,8", "--out", tmp_path / "out")
    assert re.findall(r"^(recorded|T = \S+) ", ended.output, re.MULTILINE) == [
        "recorded", "T = 0.25", "T = 1", "T = 8",
    ]  # fmt: skip
    found = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert [one["temperature"] for one in found["replayed"]] == [0.25, 1.0, 8.0]
    depths = [one["walks"][0]["ridge_height"]["value"] for one in found["replayed"]]
    assert depths[0] > depths[1] > depths[2]
    assert found["replayed"][1]["walks"] == found["recorded"]["walks"]
    assert {one.name for one in (tmp_path / "out").iterdir()} == {"replay.json", "replay.png"}


def test_files_of_a_replay_can_be_read_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = uncanny(
        "replay", folder / "run", "--head", "smoothed", "--temperature", "0.5", "--json", "--out", out
    )
    found = json.loads(ended.stdout)
    assert all(Path(one).stat().st_size for one in found["files"].values())
    assert found["replayed"][0]["head"] == "smoothed"
    assert set(found["replayed"][0]["left_out"]) == {"input_gradient_norm", "log_input_gradient_norm"}
    assert "another run" in found["caution"]
    walk = Trajectory(pq.read_table(out / "replay.parquet"))
    head = load_file(out / "replayed_head.safetensors")
    uv_head = uv.replay(folder / "run", head=out / "replayed_head.safetensors")
    assert_same_columns(uv_head, walk, atol=5e-5)
    assert head["weight"].dtype == torch.float32
    assert Trajectory(pq.read_table(out / "control_noise.parquet")).attack == "noise"
    assert (out / "replay.png").read_bytes().startswith(b"\x89PNG")


def test_runs_that_cannot_be_replayed(folder: Path, tmp_path: Path) -> None:
    def refused(*arguments: str | Path) -> str:
        return " ".join(uncanny("replay", *arguments, code=2).stderr.split())

    assert "kept no logits" in refused(folder / "hot", "--temperature", "2")
    assert "--keep logits" in refused(folder / "hot", "--temperature", "2")
    assert "does not exist" in refused(tmp_path / "<script>alert(1)</script>", "--temperature", "2")
    assert "say what to replay with" in refused(folder / "run")
    assert "not both" in refused(folder / "run", "--temperature", "2", "--temperatures", "2")
    assert "numbers with commas" in refused(folder / "run", "--temperatures", "2;3")
    assert "between 1e-06 and 1e+06" in refused(folder / "run", "--temperatures", "2,0")
    assert "unknown head" in refused(folder / "run", "--head", "etx")
    assert "stays as it was recorded" in refused(
        folder / "run", "--temperature", "2", "--out", folder / "hot"
    )
    assert "first restart" in refused(
        folder / "run", "--temperature", "2", "--restart", "1", "--out", tmp_path
    )
    assert "recorded: [0]" in refused(folder / "run", "--temperature", "2", "--restart", "1")
    logits = recorded(tmp_path / "logits", controls=False, model="demo", limit=8, keep="logits")
    assert "kept its logits alone" in refused(logits, "--head", "etf")
    assert "Controls" not in uncanny("replay", logits, "--temperature", "2").output


def test_few_images_have_no_smoothed_head_and_damage_is_noticed(folder: Path, tmp_path: Path) -> None:
    few = recorded(tmp_path / "few", controls=False, model="demo", limit=8, keep="features")
    assert "at least 5 images of each" in uncanny("replay", few, "--head", "smoothed", code=2).stderr
    shard = few / "shards" / "part-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert "part-00000.parquet" in uncanny("replay", few, "--temperature", "2", code=2).stderr
    with pytest.raises(uv.InputError, match=r"part-00000\.parquet"):
        uv.replay(few, temperature=2)
