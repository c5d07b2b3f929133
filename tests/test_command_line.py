"""The program as a user meets it: what it prints, what it writes, how it ends."""

import html
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pages import Reader, numbers_of

UNCANNY = [sys.executable, "-m", "uncannyvalley"]
SMALL = ["--eps", "0.3", "--step-size", "0.05", "--steps", "4", "--limit", "12"]


def uncanny(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run([*UNCANNY, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    uncanny("record", *SMALL, "--out", out)
    return out


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from uncannyvalley.cli.app import app\ntry: app(['--help'])\nexcept SystemExit: pass\n"
    )
    loaded = "print([name for name in ('torch', 'pyarrow', 'sklearn', 'matplotlib', 'pydantic') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code + loaded], capture_output=True, text=True, check=True)
    assert "record" in ended.stdout
    assert ended.stdout.strip().endswith("[]")


def test_importing_the_package_needs_no_torch() -> None:
    code = "import sys, uncannyvalley; assert 'torch' not in sys.modules; uncannyvalley.split; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_there_and_no_modules_hide_them() -> None:
    import inspect

    import uncannyvalley as uv

    rooms = {"adversaries", "attacks", "data", "llm", "measures", "objectives", "zoo"}
    assert rooms == {name for name in uv.__all__ if inspect.ismodule(getattr(uv, name))}
    for name in ("pgd", "fgsm", "momentum", "noise", "assist"):
        assert callable(getattr(uv.attacks, name))


def test_version_and_unknown_commands() -> None:
    assert re.fullmatch(r"uncanny \d+\.\d+\.\d+\n", uncanny("--version").stdout)
    assert "No such command" in uncanny("recrod", code=2).stderr
    assert "Missing option" in uncanny("record", code=2).stderr


def test_record_prints_phases_and_says_where_things_are(recorded: Path) -> None:
    ended = uncanny("record", *SMALL, "--out", recorded)
    assert "complete already" in ended.stdout
    for word in (
        "label flipped",
        "noise",
        "assist",
        "of it Gini",
        "exactly confidence times norm",
        "report.html",
    ):
        assert word in ended.stdout, word
    assert (recorded / "walk.png").stat().st_size > 10_000
    assert (recorded / "phases.parquet").is_file()


def test_the_page_is_whole_and_offline(recorded: Path) -> None:
    page = (recorded / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "default-src 'none'; img-src data:" in html.unescape(page)
    seen = Reader(page)
    assert all(one.startswith(("data:", "#")) for one in seen.addresses)
    assert "http" not in seen.text
    assert "uncanny record --model demo --data digits" in seen.text
    assert numbers_of(page)["runs"][0]["class_names"] == [str(digit) for digit in range(10)]


def test_json_is_json(recorded: Path) -> None:
    for arguments in (
        ("record", *SMALL, "--out", recorded, "--json"),
        ("phases", recorded, "--json"),
        ("phases", recorded, "--examples", "--json"),
        ("show", recorded, "--json"),
        ("check", "--limit", "8", "--json"),
        ("list", "attacks", "--json"),
        ("list", "measures", "--json"),
    ):
        assert json.loads(uncanny(*arguments).stdout)


def test_show_phases_list_and_check(recorded: Path) -> None:
    shown = uncanny("show", recorded).stdout
    assert "1 of 1" in shown
    assert "log_relative_sharpness" in shown
    assert "depth, nats" in uncanny("phases", recorded, "--examples").stdout
    assert "Projected gradient ascent" in uncanny("list", "attacks").stdout
    assert "log κ" in uncanny("list", "measures").stdout
    checked = uncanny("check", "--limit", "8").stdout
    assert "folded 6 batch norms" in checked
    assert "nats wide" in checked


def test_options_reach_the_run(tmp_path: Path) -> None:
    from uncannyvalley import data

    out = tmp_path / "run"
    options = [
        "--attack",
        "momentum",
        "--norm",
        "l2",
        "--random-start",
        "--restarts",
        "2",
        "--every",
        "2",
        "--seed",
        "7",
    ]
    own_class = str(int(data.load("digits").labels[0]))
    refused = uncanny("record", *SMALL, *options, "--target", own_class, "--out", out, code=2)
    assert "target equals the true class" in refused.stderr
    uncanny(
        "record",
        *SMALL,
        *options,
        "--target",
        "least-likely",
        "--keep",
        "logits",
        "--no-controls",
        "--out",
        out,
    )
    about = json.loads(uncanny("show", out, "--json").stdout)
    assert about["restarts"] == 2
    assert about["seed"] == 7
    assert about["controls"] == "none"
    import uncannyvalley as uv

    trajectory = uv.open_run(out).trajectory
    assert trajectory.rows == 6
    assert sorted(set(trajectory.table["step"].to_pylist())) == [0, 2, 4, 5]
    assert trajectory.column("target", restart=1).shape == (12, 6)


def test_some_measures_only(tmp_path: Path) -> None:
    ended = uncanny("record", *SMALL, "--measures", "loss,margin", "--no-controls", "--out", tmp_path / "run")
    assert "Phases need log_relative_sharpness" in ended.stdout
    assert "margin" in uncanny("show", tmp_path / "run").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--attack", "pdg"), "did you mean 'pgd'"),
        (("--data", "digit"), "did you mean 'digits'"),
        (("--model", "demos"), "did you mean 'demo'"),
        (("--eps", "0"), "eps must be"),
        (("--eps", "eight"), "write it as 0.03 or as 8/255"),
        (("--eps", "1/0"), "is no number"),
        (("--limit", "0"), "limit must be"),
        (("--measures", "los"), "did you mean 'loss'"),
        (("--device", "toaster"), "cannot be used here"),
        (("--dtype", "float31"), "unknown dtype"),
        (("--model-arg", "width"), "name=value"),
        (("--norm", "L2"), "did you mean 'l2'"),
        (("--target", "cow"), "unknown target class"),
    ],
)
def test_mistakes_end_with_code_2_and_one_line(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    ended = uncanny("record", *SMALL, *arguments, "--out", tmp_path / "run", code=2)
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    assert "does not exist" in uncanny("show", tmp_path / "nowhere", code=2).stderr
    assert "no run folder" in uncanny("phases", tmp_path, code=2).stderr


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [
        "record",
        "--eps",
        "0.3",
        "--step-size",
        "0.01",
        "--steps",
        "400",
        "--shard-size",
        "4",
        "--batch-size",
        "4",
    ]
    # a shell that runs the tests in the background leaves SIGINT ignored, and children inherit that
    process = subprocess.Popen(
        [*UNCANNY, *arguments, "--out", str(out)], stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (out / "manifest.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Finished shards are kept" in said
    assert "Traceback" not in said
    assert not list(out.rglob("*.tmp"))
    import uncannyvalley as uv

    run = uv.open_run(out)
    assert 0 < len(run.missing_shards()) < len(run.plan.shards())
    assert len(run.trajectory) > 0
