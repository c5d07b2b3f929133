"""SIGKILL, two processes at once, and shards that fail: the folder goes on to the same table. studies/survives_kills.py kills more."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from folders import PLAN, RECORD, differences, tiny_network, uncanny, verify_lines
from killing import Death, kill_at_operation, kill_at_time, kill_workers, live

from uncannyvalley.run.folder import open_run

SHARDS = 3 * 3
"""Of a run of ten images in fours, with both controls."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("surviving")
    tiny_network(place)
    (place / "grid.toml").write_text(PLAN)
    return place


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> Path:
    """The study, recorded in one go."""
    uncanny("run", place / "grid.toml", "--out", place / "undisturbed")
    return place / "undisturbed"


def is_whole(out: Path, undisturbed: Path, tolerance: float = 0) -> None:
    assert differences(out, undisturbed, tolerance) == []
    assert verify_lines(out) == []


def record_command(place: Path, out: Path) -> list[str]:
    return [*RECORD, "--model", f"{place / 'tiny.py'}:build", "--out", str(out)]


def operations_like(operations: list[str], part: str) -> list[int]:
    """Numbers of the logged operations that hold a text."""
    return [number for number, one in enumerate(operations, 1) if part in one]


def test_killed_at_moments_of_every_kind(place: Path, undisturbed: Path, tmp_path: Path) -> None:
    """In the middle of the first write, of a shard, of a manifest, and of the end; and by the clock."""
    out, log = tmp_path / "study", tmp_path / "log"
    command = ["run", str(place / "grid.toml"), "--out", str(out)]
    life = live(command, tmp_path / "once", log)
    draw = random.Random(0)
    moments = [
        draw.choice(operations_like(life.operations, part))
        for part in ("plan.toml", "shards/part", "manifest")
    ]
    deaths: list[Death] = [kill_at_operation(command, out, log, number) for number in moments]
    deaths.append(kill_at_time(command, out, log, draw.uniform(0.5, 1) * life.seconds))
    assert sum(one.killed for one in deaths) >= 2, deaths
    uncanny(*command)
    is_whole(out, undisturbed)


def test_a_run_that_is_killed_goes_on(place: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    command = record_command(place, out)
    once = record_command(place, tmp_path / "once")
    life = live(once, tmp_path / "once", log)
    shards = operations_like(life.operations, "rename controls/noise/shards/part-00001")
    assert kill_at_operation(command, out, log, shards[0]).killed
    left = open_run(out)
    assert left.missing_shards() == []
    assert verify_lines(left.path / "controls" / "noise")
    uncanny(*command)
    is_whole(out, tmp_path / "once")


def test_killed_ray_workers_are_replaced(place: Path, undisturbed: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out, log = tmp_path / "study", tmp_path / "log"
    command = ["run", str(place / "grid.toml"), "--out", str(out), "--engine", "ray", "--workers", "2"]
    killed, _ = kill_workers(command, out, log, 0.5, 1, random.Random(0))
    assert killed == 1
    is_whole(out, undisturbed, tolerance=1e-4)


WAITING = """
import os, time
from pathlib import Path
from torch import nn
from tiny import build as network


class Waiting(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        held, go = Path(os.environ["UNCANNY_TEST"]) / "held", Path(os.environ["UNCANNY_TEST"]) / "go"
        if list(Path(os.environ["UNCANNY_TEST"]).glob("out/shards")):
            held.touch()
            while not go.exists():
                time.sleep(0.02)
        return self.net(x)


def build():
    return Waiting().eval()
"""


@contextmanager
def held_by_another(place: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, another process runs the command and waits in its first shard; afterwards it must end well."""
    (place / "waiting.py").write_text(WAITING)
    monkeypatch.setenv("UNCANNY_TEST", str(place))
    process = subprocess.Popen([sys.executable, "-m", "uncannyvalley", *command], stdout=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 60
        while not (place / "held").exists():
            assert process.poll() is None
            assert time.monotonic() < ends
            time.sleep(0.05)
        yield
    finally:
        (place / "go").touch()
        assert process.wait(timeout=60) == 0


def test_two_processes_on_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is refused, whatever it wants to do there, and breaks nothing; readers are not in the way."""
    tiny_network(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    plan, out = tmp_path / "grid.toml", tmp_path / "out"
    plan.write_text(PLAN.replace("tiny.py", "waiting.py").replace("eps = [0.2, 0.3]", "eps = 0.3"))
    command = ["run", str(plan), "--out", str(out)]
    monkeypatch.setenv("UNCANNY_TEST", str(tmp_path / "nowhere"))
    with held_by_another(tmp_path, command, monkeypatch):
        (tmp_path / "go").touch()  # for this process: its network must not wait
        for second in (command, [*command, "--part", "1/2"], [*command, "--overwrite"]):
            assert "another process" in uncanny(*second, code=2).output
        uncanny("show", out)
    assert verify_lines(out) == []
    assert "nothing to record" in uncanny(*command).output
