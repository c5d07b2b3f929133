"""uncanny measure, certify, bound and check --order, as a user meets them."""

import json
import math
from pathlib import Path

import jaxtyping
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

import uncannyvalley as uv
from test_command_line import uncanny
from uncannyvalley import data, zoo
from uncannyvalley.cli.app import app


def in_process(*arguments: str | Path, code: int = 0) -> Result:
    """The command line without a process of its own, which takes seconds to start."""
    jaxtyping.config.update("jaxtyping_disable", True)  # the shape hook cannot read typer's annotations
    try:
        ended = CliRunner().invoke(app, [str(one) for one in arguments])
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert ended.exit_code == code, ended.output
    return ended


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("measured") / "layers"
    return json.loads(uncanny("measure", "--limit", "6", "--order", "3", "--out", out, "--json").stdout), out


def test_measure_writes_a_row_for_each_image_and_layer(measured: tuple[dict, Path]) -> None:
    printed, out = measured
    table = pq.read_table(out / "curvature.parquet")
    layers = [row["layer"] for row in printed["layers"]]
    assert layers == ["0", "3", "6", "9", "12", "15", "20"]
    assert table.num_rows == 6 * len(layers)
    assert table.schema.field("log_trace").metadata[b"unit"] == b"log"
    assert (out / "depth.png").stat().st_size > 5000
    middle = np.median([row["log_trace"] for row in table.to_pylist() if row["layer"] == "3"])
    assert printed["layers"][1]["log_trace"] == pytest.approx(middle)


def test_the_table_holds_what_curvature_returns(measured: tuple[dict, Path]) -> None:
    table = pq.read_table(measured[1] / "curvature.parquet").to_pylist()
    images, net = data.digits("test").first(6), zoo.demo()
    for quantity in ("relative_sharpness", "third_order"):
        expected = uv.curvature(net, images[:], images.labels, "9", quantity).log_value
        found = torch.tensor([row[f"log_{quantity}"] for row in table if row["layer"] == "9"])
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


def test_measure_prints_a_table_that_says_what_it_holds() -> None:
    shown = in_process("measure", "--limit", "3", "--layer", "0,20").stdout
    for word in ("log κ", "κ/Gini", "class gradients", "λ_max"):
        assert word in shown
    assert "example" in in_process("measure", "--limit", "2", "--layer", "20", "--examples").stdout


def test_estimates_come_with_their_errors() -> None:
    command = (
        "measure",
        "--limit",
        "3",
        "--layer",
        "0",
        "--method",
        "estimate",
        "--quantities",
        "third_derivative",
    )
    (row,) = json.loads(in_process(*command, "--backwards", "40", "--json").stdout)["layers"]
    assert row["how"] == "probes"
    assert row["third_derivative_stderr"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layer", "nothere"], "unknown layer 'nothere'"),
        (["--layer", "1"], "BatchNorm2d"),
        (["--order", "4"], "order must be 2 or 3"),
        (["--method", "guess"], "unknown method 'guess'"),
        (["--quantities", "trce"], "did you mean 'trace'"),
        (["--layer", "input", "--quantities", "relative_sharpness"], "the input has none"),
        (["--tolerance", "2"], "tolerance"),
    ],
)
def test_mistakes_of_measure_are_named(options: list[str], words: str) -> None:
    ended = in_process("measure", "--limit", "2", *options, code=2)
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_layers_can_be_recorded_at_every_step(tmp_path: Path) -> None:
    wanted = ["--measure", "log_relative_sharpness_per_gini@all", "--measure", "curvature_along_step@input"]
    in_process(
        "record",
        "--eps",
        "0.3",
        "--steps",
        "3",
        "--limit",
        "4",
        "--no-controls",
        *wanted,
        "--out",
        tmp_path / "run",
    )
    run = uv.open_run(tmp_path / "run").trajectory
    assert np.isfinite(run.column("log_relative_sharpness_per_gini@9")).all()
    head = run.column("log_relative_sharpness") - run.column("log_gini")
    np.testing.assert_allclose(run.column("log_relative_sharpness_per_gini@20"), head, atol=1e-3)
    assert np.isnan(run.column("curvature_along_step@input")[:, 0]).all()
    medians = json.loads(in_process("show", tmp_path / "run", "--json").stdout)["medians"]
    assert "log_relative_sharpness_per_gini@9" in [row["measure"] for row in medians]


def test_certify_keeps_certified_and_estimated_apart(tmp_path: Path) -> None:
    found = json.loads(
        in_process("certify", "--limit", "8", "--steps", "5", "--out", tmp_path, "--json").stdout
    )
    by_status = {row["status"]: row["q50"] for row in found["radii"] if row["radius"].startswith("flip")}
    assert 0 < by_status["certified"] < by_status["estimated, no promise"]
    assert found["violations"] == 0
    assert found["certified_above_zero"] == found["correct"] > 0
    assert found["lipschitz"]["sampled"] <= found["lipschitz"]["certified"]
    assert (tmp_path / "radii.png").exists()
    shown = in_process("certify", "--limit", "4", "--no-attack").stdout
    assert "no promise" in shown
    assert "PGD" not in shown


def test_an_estimate_alone_certifies_nothing() -> None:
    found = json.loads(
        in_process("certify", "--limit", "4", "--estimate-only", "--steps", "2", "--json").stdout
    )
    assert {row["status"] for row in found["radii"]} == {"estimated, no promise", "found"}
    assert found["lipschitz"]["certified"] is None
    assert found["violations"] is None
    shown = in_process("certify", "--limit", "4", "--estimate-only", "--no-attack").stdout
    assert "certified none" in shown


def test_a_model_that_is_right_nowhere_has_no_radii(tmp_path: Path) -> None:
    file = tmp_path / "lost.py"
    file.write_text(
        "from torch import nn\nfrom uncannyvalley import zoo\n"
        "def build():\n    net = zoo.demo()\n    net[-1].bias = nn.Parameter(net[-1].bias.detach() - 1e6)\n"
        "    net[-1].bias.data[9] = 1e6\n    return net\n"
    )
    ended = in_process("certify", "--model", f"{file}:build", "--limit", "3", "--no-attack", code=2)
    assert "none of the 3 images is classified correctly" in ended.stderr


def test_the_bound_stands_over_a_recorded_walk(tmp_path: Path) -> None:
    run = tmp_path / "run"
    in_process("record", "--eps", "0.3", "--steps", "4", "--limit", "8", "--no-controls", "--out", run)
    found = json.loads(in_process("bound", run, "--out", tmp_path, "--json").stdout)
    assert [row["step"] for row in found["steps"]] == [1, 2, 3, 4]
    assert all(row["certified_broken"] == 0 and row["certified_tightness"] <= 1 for row in found["steps"])
    assert all(math.isfinite(row["estimated"]) for row in found["steps"])
    assert (tmp_path / "bounds.png").exists()
    assert "loss change" in in_process("bound", run).stdout


def test_bound_runs_no_code_that_was_not_named(tmp_path: Path) -> None:
    file, marker, run = tmp_path / "mine.py", tmp_path / "ran", tmp_path / "run"
    shown = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nfrom uncannyvalley import zoo\n"
    file.write_text(shown + "def build():\n    return zoo.demo()\n")
    wanted = ("--model", f"{file}:build")
    in_process("record", *wanted, "--steps", "2", "--limit", "4", "--no-controls", "--out", run)
    marker.unlink()
    assert "name it again with --model" in in_process("bound", run, code=2).stderr
    assert not marker.exists()
    assert "loss change" in in_process("bound", run, *wanted).stdout
    file.write_text(shown + "def build():\n    return zoo.demo_network(8).eval()\n")
    assert "is not the network of this run" in in_process("bound", run, *wanted, code=2).stderr


def test_bound_says_what_to_give() -> None:
    assert "give a run folder" in in_process("bound", code=2).stderr


def test_check_predicts_what_curvature_costs() -> None:
    costs = json.loads(in_process("check", "--limit", "8", "--order", "3", "--json").stdout)["costs"]
    assert {(row["layer"], row["order"]) for row in costs} == {
        (layer, order) for layer in ("0", "3", "6", "9", "12", "15", "20") for order in (2, 3)
    }
    assert all(row["seconds"] > 0 and row["megabytes"] > 0 and row["backwards"] == 9 for row in costs)
    assert "Predicted cost of curvature" in in_process("check", "--limit", "8", "--order", "2").stdout
    assert "order must be 2 or 3" in in_process("check", "--limit", "8", "--order", "5", code=2).stderr
