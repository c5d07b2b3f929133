"""The batch script is one that bash and Slurm take: read by bash, run with stand-ins for uncanny and sbatch."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from jaxtyping import config

from uncannyvalley import InputError
from uncannyvalley.study.slurm import LEAST_SECONDS, batch_script, time_limit

STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "{name}" "$@" "threads=${{OMP_NUM_THREADS:-}}" >> {log}
{then}
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with stand-ins for ``uncanny`` and ``sbatch``, which write down their arguments."""
    (tmp_path / "bin").mkdir()
    write_stand_in(tmp_path, "uncanny", "")
    write_stand_in(tmp_path, "sbatch", 'echo "$((4711 + $(grep -c ^sbatch calls.txt)));cluster"')
    return tmp_path


def write_stand_in(folder: Path, name: str, then: str) -> None:
    path = folder / "bin" / name
    path.write_text(STAND_IN.format(name=name, log=folder / "calls.txt", then=then))
    path.chmod(0o755)


def run_script(
    folder: Path, script: str, *options: str, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    (folder / "job.sh").write_text(script)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "OMP"))}
    ended = subprocess.run(
        ["bash", "job.sh", *options],
        cwd=folder,
        env=outside | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    return ended


def calls(folder: Path) -> list[str]:
    return (folder / "calls.txt").read_text().splitlines()


def directives(script: str) -> dict[str, str]:
    """What sbatch reads: lines that begin with #SBATCH, up to the first command."""
    found = {}
    for line in script.splitlines():
        if line and not line.startswith("#"):
            break
        if match := re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line):
            found[match[1]] = match[2]
        else:
            assert not line.startswith("#SBATCH"), line
    return found


def test_every_directive_stands_before_the_first_command() -> None:
    script = batch_script(Path("plans/cifar.toml"), "runs/cifar", 40, seconds=3601.0, cpus=2)
    assert script.startswith("#!/usr/bin/env bash\n")
    assert directives(script) == {
        "job-name": "cifar", "array": "1-40", "time": "02:01:00", "nodes": "1", "ntasks": "1", "cpus-per-task": "2",
        "requeue": None, "open-mode": "append", "output": "logs/cifar/%A_%a.log",
    }  # fmt: skip
    assert sum(line.startswith("#SBATCH") for line in script.splitlines()) == 9
    assert "\n##SBATCH --gres=gpu:1\n" in script


def test_a_part_asks_for_a_gpu_where_it_was_timed_on_one() -> None:
    script = batch_script(Path("a.toml"), "out", 3, seconds=10.0, on_gpu=True)
    assert directives(script)["gres"] == "gpu:1"


def test_without_an_estimate_the_time_is_left_to_the_user() -> None:
    script = batch_script(Path("a.toml"), "out", 3, seconds=None)
    assert "time" not in directives(script)
    assert "\n##SBATCH --time=" in script


@pytest.mark.parametrize(
    ("seconds", "limit"),
    [(0.0, "00:10:00"), (299.0, "00:10:00"), (301.0, "00:11:00"), (1800.0, "01:00:00"), (4e5, "222:14:00")],
)
def test_time_limits_have_a_margin_and_a_least(seconds: float, limit: str) -> None:
    assert time_limit(seconds) == limit
    hours, minutes, rest = map(int, limit.split(":"))
    assert hours * 3600 + minutes * 60 + rest >= max(2 * seconds, LEAST_SECONDS)


@pytest.mark.parametrize(
    ("plan", "out"),
    [
        ("cifar.toml", "runs/cifar"),
        ("my plans/the 'first' one.toml", "runs/a b"),
        ("$HOME `id` $(id).toml", 's3://bucket/"study" & more'),
        ("semi;colon #.toml", "out\\"),
    ],
)
def test_a_part_runs_its_share_whatever_the_paths_hold(here: Path, plan: str, out: str) -> None:
    script = batch_script(Path(plan), out, 40, seconds=60.0)
    assert (
        subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=True).stderr == ""
    )
    run_script(here, script, SLURM_ARRAY_TASK_ID="17", SLURM_CPUS_PER_TASK="6")
    assert calls(here) == ["uncanny", "run", plan, "--out", out, "--part", "17/40", "threads=6"]
    assert directives(script)["output"] == f"logs/{directives(script)['job-name']}/%A_%a.log"


def test_a_part_that_fails_fails_its_job(here: Path) -> None:
    write_stand_in(here, "uncanny", "exit 3")
    run_script(here, batch_script(Path("a.toml"), "out", 4, seconds=60.0), code=3, SLURM_ARRAY_TASK_ID="2")


def test_number_0_runs_what_is_left_as_a_whole(here: Path) -> None:
    run_script(here, batch_script(Path("a.toml"), "out", 4, seconds=60.0), SLURM_ARRAY_TASK_ID="0")
    assert calls(here) == ["uncanny", "run", "a.toml", "--out", "out", "threads=1"]


def test_run_outside_of_slurm_it_submits_itself_and_the_last_job(here: Path) -> None:
    ended = run_script(
        here, batch_script(Path("a.toml"), "out", 4, seconds=60.0), "--partition=gpu", "--comment=two words"
    )
    given = ["sbatch", "--parsable", "--partition=gpu", "--comment=two words"]
    after = ["--array=0", "--dependency=afterok:4712", "--kill-on-invalid-dep=yes"]
    assert calls(here) == [*given, "job.sh", "threads=", *given, *after, "job.sh", "threads="]
    assert (here / "logs" / "a").is_dir()
    assert ended.stdout == "Job 4712: 4 parts. Job 4713: figures and pages. Logs: logs/a\n"


def test_a_refused_submission_ends_the_script(here: Path) -> None:
    write_stand_in(here, "sbatch", "echo 'Invalid job array specification' >&2; exit 1")
    ended = run_script(here, batch_script(Path("a.toml"), "out", 4, seconds=60.0), code=1)
    assert "Invalid job array specification" in ended.stderr
    assert calls(here).count("sbatch") == 1


def test_a_script_for_no_parts_is_refused() -> None:
    config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(InputError, match="parts must be a whole number of at least 1, got 0"):
            batch_script(Path("a.toml"), "out", 0, seconds=60.0)
        with pytest.raises(InputError, match="cpus must be"):
            batch_script(Path("a.toml"), "out", 1, seconds=60.0, cpus=0)
    finally:
        config.update("jaxtyping_disable", False)
