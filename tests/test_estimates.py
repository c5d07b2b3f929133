"""What uncanny plan promises is what recording then takes: rows exactly, bytes closely, seconds by a clock of our own."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from test_curvature_commands import in_process
from uncannyvalley import InputError, query_rows
from uncannyvalley.recording import record_batch
from uncannyvalley.run.plan import Plan
from uncannyvalley.run.recorder import Work
from uncannyvalley.run.request import Request
from uncannyvalley.run.workbench import Workbench
from uncannyvalley.study import first_batch
from uncannyvalley.study.estimate import CellEstimate, WalkEstimate, estimate, part_seconds, study_key
from uncannyvalley.study.first_batch import first_batch_cost
from uncannyvalley.study.folder import open_study
from uncannyvalley.study.plan_file.grid import Cell, parse_grid
from uncannyvalley.study.recording import record_with_controls
from uncannyvalley.types import Measure, Probe

SMALL = {"eps": 0.3, "limit": 24, "steps": 8, "shard_examples": 16, "keep_images": 12}


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench()


def cell(controls: bool = True, **settings: object) -> Cell:
    request = Request(**SMALL | settings)  # type: ignore[arg-type]
    labels = {
        "model": request.model, "data": request.data, "attack": request.attack, "measures": "all", "seed": str(request.seed),
    }  # fmt: skip
    return Cell(labels, request, controls)


class Clock:
    """Time passes only where it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def spend(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(first_batch, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def ticking(work: Work, clock: Clock) -> Work:
    """The same work, whose attack takes 5 s to begin and 1 s a step, and whose measures take ¼ s a row."""
    attack = work.attack

    def init(probe, draws):
        clock.spend(5.0)
        return attack.init(probe, draws)

    def step(probe, state, prober, draws):
        clock.spend(1.0)
        return attack.step(probe, state, prober, draws)

    def ticks(probe: Probe) -> torch.Tensor:
        clock.spend(0.25)
        return torch.zeros(len(probe.y))

    recording = replace(work.recording, measures=(Measure("ticks", "s", 0, ticks),))
    return replace(work, attack=attack._replace(init=init, step=step), recording=recording)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 50},
        {"steps": 50, "every": 3},
        {"steps": 49, "every": 7, "random_start": True},
        {"steps": 30, "random_start": True, "restarts": 3},
        {"steps": 5, "every": 10},
        {"steps": 2},
        {"attack": "fgsm", "steps": None},
    ],
    ids=str,
)
def test_few_steps_tell_the_time_of_all(settings: dict, bench: Workbench, clock: Clock) -> None:
    _, work = bench.make(cell(**settings).request)
    work = ticking(work, clock)
    images = work.batch_size
    found = first_batch_cost(work, keep_images=8)
    told = clock.now
    record_batch(
        work.model, work.images[:images], work.images.labels[:images], range(images), work.attack, work.recording,
        schema=work.schema,
    )  # fmt: skip
    assert found.seconds * images == pytest.approx(clock.now - told)
    if settings.get("steps") == 50:
        assert told < 0.5 * (clock.now - told)


def test_quick_walks_are_timed_for_more_steps(bench: Workbench, clock: Clock) -> None:
    _, work = bench.make(cell(steps=50).request)
    slow = ticking(work, clock)
    attack = slow.attack
    steps = 0

    def step(probe, state, prober, draws):
        nonlocal steps
        steps += 1
        clock.spend(0.02)
        return work.attack.step(probe, state, prober, draws)

    recording = replace(slow.recording, measures=())
    first_batch_cost(replace(slow, attack=attack._replace(step=step), recording=recording), keep_images=0)
    assert steps == 2 + 25  # a warm-up, then half a second


def test_a_walk_that_stops_early_is_not_scaled(bench: Workbench, clock: Clock) -> None:
    _, work = bench.make(cell(steps=50, eps=0.9, step_size=0.9, attack_arguments={"stop": "0"}).request)
    work = ticking(work, clock)
    found = first_batch_cost(work, keep_images=0)
    told = clock.now
    record_batch(
        work.model, work.images[:16], work.images.labels[:16], range(16), work.attack, work.recording, schema=work.schema
    )  # fmt: skip
    assert clock.now - told < 20, "every image was to be fooled within a few steps"
    assert found.seconds * 16 <= clock.now - told + 50


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"every": 5, "random_start": True, "restarts": 2},
        {"attack": "fgsm", "steps": None},
        {"keep": "features", "keep_images": 0},
        {
            "limit": 37,
            "batch_size": 10,
            "measures": ["loss", "log_relative_sharpness"],
            "target": "least-likely",
        },
    ],
    ids=str,
)
def test_rows_are_exact_and_bytes_close(settings: dict, bench: Workbench, tmp_path: Path) -> None:
    asked = cell(**settings)
    (found,) = estimate([asked], bench.make)
    run, outcome = record_with_controls(asked.request, tmp_path / "run")
    tables = [run.trajectory.table, *(one.table for one in run.controls().values())]
    assert [walk.rows for walk in found.walks] == [table.num_rows for table in tables]
    assert (found.shards, found.images) == (outcome.recorded, asked.request.limit)
    assert found.seconds is not None
    assert found.seconds > 0
    assert estimate([asked], bench.make, time=False)[0].rows == found.rows
    written = [*run.path.rglob("shards/*.parquet"), *run.path.rglob("images/*"), *run.path.rglob("head.*")]
    size = sum(path.stat().st_size for path in written)
    assert found.bytes == pytest.approx(size, rel=0.25)


def test_a_librarys_attack_is_run_to_its_end(bench: Workbench, tmp_path: Path) -> None:
    asked = cell(
        attack="square",
        attack_arguments={"queries": "30"},
        limit=12,
        steps=None,
        batch_size=12,
        controls=False,
    )
    (found,) = estimate([asked], bench.make)
    run, _ = record_with_controls(asked.request, tmp_path / "run", controls=False)
    assert [walk.name for walk in found.walks] == ["square"]
    assert found.rows == run.trajectory.table.num_rows
    size = sum(path.stat().st_size for path in (run.path / "shards").iterdir())
    assert found.bytes == pytest.approx(
        size + (run.path / "images/part-00000.parquet").stat().st_size, rel=0.25
    )
    assert not found.at_least
    assert estimate([asked], bench.make, time=False)[0].rows is None


@pytest.mark.parametrize("buffer", [query_rows.BUFFER_ELEMENTS, 64], ids=["after", "during"])
def test_a_librarys_attack_that_takes_too_long_is_given_up(
    buffer: int, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_rows, "BUFFER_ELEMENTS", buffer)
    asked = cell(attack="square", attack_arguments={"queries": "30"}, steps=None, keep_images=0)
    _, work = bench.make(asked.request)
    before, drawn = work.model.body(work.model.place(work.images[:4])), torch.get_rng_state()
    (found,) = estimate([asked], bench.make, patience=0.0)
    attack, *controls = found.walks
    assert (attack.at_least, found.at_least) == (True, True)
    assert (attack.rows, attack.bytes, found.rows, found.bytes) == (None, None, None, None)
    assert attack.seconds is not None
    assert attack.seconds > 0
    assert [one.at_least for one in controls] == [False, False]
    assert torch.equal(work.model.body(work.model.place(work.images[:4])), before)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not any(module._forward_hooks for module in work.model.module.modules())


def test_errors_of_a_library_are_errors_of_the_plan(bench: Workbench) -> None:
    asked = cell(attack="square", attack_arguments={"queries": "0"}, steps=None)
    with pytest.raises(InputError, match=r"^model=demo/data=digits/attack=square/measures=all/seed=0: "):
        estimate([asked], bench.make)


def test_seeds_and_equal_controls_share_a_timing(bench: Workbench) -> None:
    cells = [cell(seed=seed, attack=attack) for attack in ("pgd", "momentum") for seed in range(200)]
    made: list[Request] = []
    timed: list[str] = []

    def make(request: Request) -> tuple[Plan, Work]:
        made.append(request)
        return bench.make(request)

    found = estimate(cells, make, say=timed.append)
    assert [one.labels for one in found] == [one.labels for one in cells]
    assert len(made) == 2
    assert [what.split()[0] for what in timed] == ["pgd", "noise", "assist", "momentum"]
    assert len({one.seconds for one in found}) == 2


def test_the_key_is_that_of_the_recorded_study(bench: Workbench, tmp_path: Path) -> None:
    text = 'seeds = [0, 3]\nattacks = ["fgsm", "noise"]\ncontrols = false\n[[data]]\ndata = "digits"\nlimit = 6\n'
    (tmp_path / "plan.toml").write_text(text)
    in_process("run", tmp_path / "plan.toml", "--out", tmp_path / "out", "--no-pages", "--json")
    found = estimate(parse_grid(text, "plan.toml", tmp_path).cells(), bench.make, time=False)
    study = open_study(tmp_path / "out")
    assert study_key(found) == study.key
    assert {one.place: one.plan.key for one in found} == study.plan.cells  # type: ignore[union-attr]
    assert study_key(found[:1]) == found[0].plan.key


def test_the_longest_part_is_that_of_every_nth_shard(bench: Workbench) -> None:
    (one,) = estimate([cell(controls=False)], bench.make, time=False)
    walks = [
        WalkEstimate("a", 40, 5, 1, 10.0),
        WalkEstimate("b", 40, 2, 1, 1.0),
        WalkEstimate("c", 40, 4, 1, 40.0),
    ]
    runs = [replace(one, walks=tuple(walks)), replace(one, walks=(walks[2],))]
    shards = [2.0] * 5 + [0.5] * 2 + [10.0] * 8
    for parts in (1, 2, 3, 4, 15, 40):
        longest = max(sum(shards[first::parts]) for first in range(min(parts, 15)))
        assert part_seconds(runs, parts) == pytest.approx(longest)
    assert part_seconds([one], 2) is None


PLAN = """
seeds = [0, 1]
shard_size = 4
attacks = ["pgd", "fgsm"]
keep_images = 0
[[data]]
data = "digits"
limit = 12
"""


@pytest.fixture
def plan_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("my plan.toml").write_text(PLAN)
    return "my plan.toml"


def test_the_table_holds_every_run_and_the_sum(plan_file: str) -> None:
    shown = in_process("plan", plan_file, "--workers", "2").stdout
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["4", "runs"]
    assert lines[1] == ["attack", "seed", "images", "shards", "rows", "time", "disk"]
    assert [line[:5] for line in lines[2:7]] == [
        ["pgd", "0", "12", "9", "756"], ["pgd", "1", "12", "9", "756"], ["fgsm", "0", "12", "9", "72"],
        ["fgsm", "1", "12", "9", "72"], ["all", "12", "36", "1,656", lines[6][4]],
    ]  # fmt: skip
    assert "Every run: model demo, data digits-12, measures all." in shown
    assert "2 workers: " in shown
    assert shown.endswith("\n  uncanny run 'my plan.toml' --out 'runs/my plan' --engine ray --workers 2\n")


def test_many_runs_are_listed_with_their_seeds_folded(plan_file: str) -> None:
    Path(plan_file).write_text(PLAN.replace("[0, 1]", "{first = 10, count = 500}"))
    shown = in_process("plan", plan_file, "--no-time").stdout
    lines = [line.split() for line in shown.splitlines()]
    assert lines[:1] + lines[2:5] == [
        ["1,000", "runs"], ["pgd", "12", "4,500", "378,000", "–", "–"], ["fgsm", "12", "4,500", "36,000", "–", "–"],
        ["all", "12", "9,000", "414,000", "–", "–"],
    ]  # fmt: skip
    assert "seed 10…509." in shown


def test_json_holds_every_walk(plan_file: str) -> None:
    found = json.loads(in_process("plan", plan_file, "--parts", "3", "--out", "o", "--json").stdout)
    assert [(one["attack"], one["seed"], len(one["walks"])) for one in found["runs"]] == [
        ("pgd", "0", 3), ("pgd", "1", 3), ("fgsm", "0", 3), ("fgsm", "1", 3),
    ]  # fmt: skip
    assert found["total"]["seconds"] == pytest.approx(sum(one["seconds"] for one in found["runs"]))
    assert found["total"]["rows"] == 1656
    assert found["total"]["seconds"] / 3 <= found["seconds_of_a_share"]["parts"] < found["total"]["seconds"]
    assert len(found["key"]) == 64
    assert found["command"].startswith("uncanny plan 'my plan.toml' --out o --parts 3 --slurm > job.sh")


def test_slurm_prints_the_script_alone(plan_file: str) -> None:
    ended = in_process("plan", plan_file, "--parts", "3", "--slurm", "--cpus", "2")
    assert ended.stdout.startswith("#!/usr/bin/env bash\n")
    assert "#SBATCH --array=1-3\n" in ended.stdout
    assert "#SBATCH --cpus-per-task=2\n" in ended.stdout
    assert "#SBATCH --time=00:10:00\n" in ended.stdout
    assert "out='runs/my plan'\n" in ended.stdout
    subprocess.run(["bash", "-n"], input=ended.stdout, text=True, check=True)
    assert "The longest part takes" in ended.stderr
    Path(plan_file).write_text('device = "cuda"' + PLAN)
    ended = in_process("plan", plan_file, "--parts", "3", "--slurm", "--no-time", "--device", "cpu")
    assert "\n#SBATCH --gres=gpu:1\n" in ended.stdout
    assert "Nothing was timed: set --time in the script." in ended.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--parts", "0"), "--parts must be a whole number of at least 1, got 0"),
        (("--workers", "-1"), "--workers must be"),
        (("--slurm",), "takes --parts N"),
        (("--slurm", "--parts", "2", "--json"), "goes without --json"),
        (("--parts", "37", "--no-time"), "36 shards, too few for 37 parts; give --parts 36 or fewer"),
    ],
)
def test_bad_options(options: tuple[str, ...], says: str, plan_file: str) -> None:
    assert says in in_process("plan", plan_file, *options, code=2).stderr


def test_estimates_add_up_and_what_is_unknown_stays_so(bench: Workbench) -> None:
    (one,) = estimate([cell(controls=False)], bench.make, time=False)
    assert isinstance(one, CellEstimate)
    assert (one.seconds, one.bytes) == (None, None)
    both = replace(
        one, walks=(WalkEstimate("a", 40, 3, 10, 2.0, 100), WalkEstimate("b", 40, 3, 10, 1.5, 50, True))
    )
    assert (both.shards, both.rows, both.seconds, both.bytes, both.at_least) == (6, 20, 3.5, 150, True)
