"""SIGKILL, two processes at once, and shards that fail: the folder goes on to the same table. studies/survives_kills.py kills more."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from folders import NETWORK, ONE, PLAN, RECORD, differences, killing, tiny_network, uncanny, verify_lines
from uncannyvalley.run.folder import open_run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("surviving")
    tiny_network(place)
    (place / "grid.toml").write_text(PLAN)
    return place


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> Path:
    """The study, recorded in one go."""
    uncanny("run", place / "grid.toml", "--out", place / "undisturbed", "--no-pages")
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
    command = ["run", str(place / "grid.toml"), "--no-pages", "--out", str(out)]
    life = killing.live(command, out, log)
    shutil.rmtree(out)
    draw = random.Random(0)
    moments = [
        draw.choice(operations_like(life.operations, part))
        for part in ("plan.toml", "shards/part", "manifest")
    ]
    deaths: list[killing.Death] = [killing.kill_at_operation(command, out, log, number) for number in moments]
    deaths.append(killing.kill_at_time(command, out, log, draw.uniform(0.5, 1) * life.seconds))
    assert sum(one.killed for one in deaths) >= 2, deaths
    uncanny(*command)
    is_whole(out, undisturbed)


def test_a_run_that_is_killed_goes_on(place: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    command = record_command(place, out)
    once = record_command(place, tmp_path / "once")
    life = killing.live(once, tmp_path / "once", log)
    shards = operations_like(life.operations, "rename controls/noise/shards/part-00001")
    assert killing.kill_at_operation(command, out, log, shards[0]).killed
    left = open_run(out)
    assert left.missing_shards() == []
    assert verify_lines(left.path / "controls" / "noise")
    uncanny(*command)
    is_whole(out, tmp_path / "once")


def test_killed_ray_workers_are_replaced(place: Path, undisturbed: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out, log = tmp_path / "study", tmp_path / "log"
    command = [
        "run",
        str(place / "grid.toml"),
        "--no-pages",
        "--out",
        str(out),
        "--engine",
        "ray",
        "--workers",
        "2",
    ]
    killed, _ = killing.kill_workers(command, out, log, 0.5, 1, random.Random(0))
    assert killed == 1
    is_whole(out, undisturbed, tolerance=1e-4)


WAITING = """
import os, time
from pathlib import Path


class Waiting(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        place = Path(os.environ.get("UNCANNY_TEST", "nowhere"))
        if (place / "out").exists():
            (place / "held").touch()
            while not (place / "go").exists():
                time.sleep(0.02)
        return self.net(x)


def build():
    return Waiting().eval()
"""


@contextmanager
def held_by_another(place: Path, command: list[str]) -> Iterator[None]:
    """Inside, another process runs the command and waits in its first shard; afterwards it must end well."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uncannyvalley", *command],
        stdout=subprocess.DEVNULL, env={**os.environ, "UNCANNY_TEST": str(place)},
    )  # fmt: skip
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


@pytest.fixture
def waiting(tmp_path: Path) -> list[str]:
    """A command whose network waits, where the environment names this folder, until a file is there."""
    (tmp_path / "waiting.py").write_text(NETWORK.replace("def build", "def network") + WAITING)
    (tmp_path / "grid.toml").write_text(ONE.replace("tiny.py", "waiting.py"))
    return ["run", str(tmp_path / "grid.toml"), "--no-pages", "--out", str(tmp_path / "out")]


def test_two_processes_on_one_folder(tmp_path: Path, waiting: list[str]) -> None:
    """The second is refused, whatever it wants to do there, and breaks nothing; readers are not in the way."""
    out = tmp_path / "out"
    with held_by_another(tmp_path, waiting):
        for more in ([], ["--part", "1/2"], ["--overwrite"]):
            assert "another process" in uncanny(*waiting, *more, code=2).output
        uncanny("show", out)
    assert verify_lines(out) == []
    assert "nothing to record" in uncanny(*waiting).output


def test_parts_run_beside_each_other_and_no_part_twice(tmp_path: Path, waiting: list[str]) -> None:
    out = tmp_path / "out"
    with held_by_another(tmp_path, [*waiting, "--part", "1/2"]):
        for more in ([], ["--part", "1/2"]):
            assert "another process" in uncanny(*waiting, *more, code=2).output
        uncanny(*waiting, "--part", "2/2")
        assert verify_lines(out)
    assert verify_lines(out) == []
    assert "recorded" not in uncanny(*waiting, "--part", "1/2").output
    uncanny(*waiting)
    assert differences(out, recorded_at_once(tmp_path, waiting)) == []


def recorded_at_once(place: Path, command: list[str]) -> Path:
    uncanny(*command[:-1], place / "once")
    return place / "once"


FAILING = """
import os
from pathlib import Path
from uncannyvalley import data

BAD = data.load("digits").first(24)[20]
PLACE = Path(__file__).parent


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        logits = self.net(x)
        bad = (x - BAD).abs().flatten(1).amax(1) < 0.15
        if not bad.any() or (PLACE / "cured").exists():
            return logits
        if (PLACE / "next time").exists():
            (PLACE / "next time").unlink()
            raise RuntimeError("a cosmic ray")
        if (PLACE / "unreachable").exists():
            raise ConnectionError("the share is gone")
        if (PLACE / "nan").exists():
            return logits.masked_fill(bad[:, None], float("nan"))
        if (PLACE / "always").exists():
            raise RuntimeError("this image is cursed")
        return logits


def build():
    return Failing().eval()
"""


@pytest.fixture
def failing(tmp_path: Path) -> list[str]:
    """A plan whose network fails at image 20, in the sixth of six shards, where a file asks for it."""
    (tmp_path / "failing.py").write_text(NETWORK.replace("def build", "def network") + FAILING)
    text = ONE.replace("tiny.py", "failing.py").replace("limit = 10", "limit = 24").replace("0.3", "0.1")
    (tmp_path / "grid.toml").write_text(text)
    return ["run", str(tmp_path / "grid.toml"), "--no-pages", "--out", str(tmp_path / "out")]


def test_a_shard_that_fails_once_is_tried_again(tmp_path: Path, failing: list[str]) -> None:
    (tmp_path / "next time").touch()
    uncanny(*failing)
    assert not (tmp_path / "next time").exists()
    assert verify_lines(tmp_path / "out") == []
    assert differences(tmp_path / "out", recorded_at_once(tmp_path, failing)) == []


@pytest.mark.parametrize(
    ("how", "error"),
    [("always", "this image is cursed"), ("nan", "NaN"), ("unreachable", "the share is gone")],
)
def test_a_shard_that_always_fails_is_reported_and_the_others_go_on(
    tmp_path: Path, failing: list[str], how: str, error: str
) -> None:
    out = tmp_path / "out"
    (tmp_path / how).touch()
    said = uncanny(*failing, code=1).output
    assert error in said
    assert "part-00005.parquet" in said
    assert open_run(out).missing_shards() == ["part-00005.parquet"]
    assert len(open_run(out).trajectory) == 20
    assert any("part-00005.parquet" in line and error in line for line in verify_lines(out))
    assert error in uncanny("show", out).output
    (tmp_path / "cured").touch()
    uncanny(*failing)
    assert verify_lines(out) == []
    assert differences(out, recorded_at_once(tmp_path, failing)) == []


def test_no_retries(tmp_path: Path, failing: list[str]) -> None:
    (tmp_path / "next time").touch()
    assert "a cosmic ray" in uncanny(*failing, "--retries", "0", code=1).output
    uncanny(*failing)
    assert verify_lines(tmp_path / "out") == []
