"""A study is the same table whatever recorded it: in one go or in bits, in parts, in any order, by any number of workers."""

import itertools
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from folders import NETWORK, differences, uncanny, verify_lines
from uncannyvalley.run.making import held_place
from uncannyvalley.run.workbench import Workbench
from uncannyvalley.study.cells import walks_of
from uncannyvalley.study.driver import carry_out
from uncannyvalley.study.plan_file.grid import read_grid
from uncannyvalley.study.recording import make_folders
from uncannyvalley.study.task import Report, Task
from uncannyvalley.study.worker import Worker

STOPPING = """
from pathlib import Path

LEFT = Path(__file__).with_name("forwards")


class Stopping(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        if LEFT.exists():
            left = int(LEFT.read_text()) - 1
            LEFT.write_text(str(left))
            if left < 0:
                LEFT.unlink()
                raise KeyboardInterrupt
        return self.net(x)


def build():
    return Stopping().eval()
"""


@dataclass(frozen=True)
class Shape:
    """A small study: images, images of a shard, starts of each walk, whether at random points."""

    limit: int
    shard_size: int
    restarts: int
    random_start: bool

    def write(self, place: Path) -> Path:
        (place / "stopping.py").write_text(NETWORK.replace("def build", "def network") + STOPPING)
        plan = place / "grid.toml"
        plan.write_text(
            f'shard_size = {self.shard_size}\nkeep_images = 3\ncontrols = false\n[[models]]\nmodel = "stopping.py:build"\n'
            f'[[data]]\ndata = "digits"\nlimit = {self.limit}\n[[attacks]]\nattack = "pgd"\neps = [0.1, 0.3]\nsteps = 2\n'
            f"restarts = {self.restarts}\nrandom_start = {str(self.random_start).lower()}\n"
            '[[measures]]\nname = "few"\nmeasures = ["log_relative_sharpness", "loss"]\n'
        )
        return plan


shapes = st.builds(Shape, st.integers(3, 7), st.integers(1, 4), st.integers(1, 2), st.booleans())


@contextmanager
def recorded(shape: Shape) -> Iterator[tuple[Path, Path, Path]]:
    """A folder, a plan in it, and the study that one call makes of it."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        plan = shape.write(place)
        uncanny("run", plan, "--out", place / "once", "--no-pages")
        yield place, plan, place / "once"


def is_same(ours: Path, once: Path, tolerance: float = 0) -> None:
    assert differences(ours, once, tolerance) == []
    assert verify_lines(ours) == []


few = settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)


@few
@given(shapes, st.lists(st.integers(0, 40), max_size=3))
def test_stopped_and_resumed_anywhere(shape: Shape, stops: list[int]) -> None:
    with recorded(shape) as (place, plan, once):
        for forwards in stops:
            (place / "forwards").write_text(str(forwards))
            uncanny("run", plan, "--out", place / "out", "--no-pages", code=None)
            (place / "forwards").unlink(missing_ok=True)
        uncanny("run", plan, "--out", place / "out", "--no-pages")
        is_same(place / "out", once)


@few
@given(shapes, st.integers(1, 4), st.randoms(use_true_random=False))
def test_in_parts_of_any_number_and_order(shape: Shape, count: int, draw: random.Random) -> None:
    with recorded(shape) as (place, plan, once):
        out = place / "out"
        parts = list(range(1, count + 1))
        draw.shuffle(parts)
        for number in parts:
            uncanny("run", plan, "--out", out, "--no-pages", "--part", f"{number}/{count}")
        is_same(out, once)
        assert "nothing to record" in uncanny("run", plan, "--out", out, "--no-pages").output
        is_same(out, once)


class Shuffled:
    """An engine of several workers that finish in any order."""

    name = "shuffled"

    def __init__(self, workers: int, draw: random.Random) -> None:
        self._workers, self._draw = [Worker("shuffled") for _ in range(workers)], draw

    def map(self, tasks: Iterable[Task]) -> Iterator[Report]:
        drawn = iter(tasks)
        while under_way := list(itertools.islice(drawn, 2 * len(self._workers))):
            self._draw.shuffle(under_way)
            for task in under_way:
                yield self._draw.choice(self._workers)(task)


@few
@given(shapes, st.integers(1, 3), st.randoms(use_true_random=False))
def test_by_any_number_of_workers_in_any_order(shape: Shape, workers: int, draw: random.Random) -> None:
    with recorded(shape) as (place, plan, once):
        grid, out, bench = read_grid(plan), place / "out", Workbench()
        walks = [
            walk
            for cell in grid.cells()
            for walk in walks_of(cell.request, out / cell.place, bench, controls=cell.controls)
        ]
        with held_place(out):
            make_folders(grid.text, walks, out)
            outcome = carry_out(walks, Shuffled(workers, draw))
        assert not outcome.failed
        is_same(out, once)


@few
@given(shapes, st.integers(1, 5), st.integers(0, 30))
def test_with_another_batch_size_from_some_shard_on(shape: Shape, batch: int, forwards: int) -> None:
    with recorded(shape) as (place, plan, once):
        (place / "forwards").write_text(str(4 + forwards))
        uncanny("run", plan, "--out", place / "out", "--no-pages", code=None)
        (place / "forwards").unlink(missing_ok=True)
        uncanny("run", plan, "--out", place / "out", "--no-pages", "--batch-size", str(batch))
        is_same(place / "out", once, tolerance=1e-4)


@pytest.mark.parametrize("first", ["record", "run"])
def test_record_and_a_plan_of_one_run_are_the_same_folder(tmp_path: Path, first: str) -> None:
    """Either goes on where the other stopped, and finds nothing to do where it finished."""
    plan = Shape(6, 2, 1, True).write(tmp_path)
    plan.write_text(plan.read_text().replace("[0.1, 0.3]", "0.3"))
    record = [
        "record", "--model", tmp_path / "stopping.py:build", "--data", "digits", "--limit", "6", "--shard-size", "2",
        "--keep-images", "3", "--eps", "0.3", "--steps", "2", "--random-start", "--no-controls", "--measures", "log_relative_sharpness,loss",
    ]  # fmt: skip
    run = ["run", plan]
    one, other = (record, run) if first == "record" else (run, record)
    uncanny(*one, "--out", tmp_path / "once")
    assert "nothing to record" in uncanny(*other, "--out", tmp_path / "once").output
    (tmp_path / "forwards").write_text("17")
    uncanny(*one, "--out", tmp_path / "out", code=130)
    assert verify_lines(tmp_path / "out")
    uncanny(*other, "--out", tmp_path / "out")
    is_same(tmp_path / "out", tmp_path / "once")


def test_another_command_is_refused(tmp_path: Path) -> None:
    plan = Shape(4, 2, 1, False).write(tmp_path)
    out = tmp_path / "out"
    uncanny("run", plan, "--out", out, "--no-pages")
    text = plan.read_text()
    for old, new in (
        ("steps = 2", "steps = 3"),
        ("limit = 4", "limit = 3"),
        ("[0.1, 0.3]", "[0.1, 0.2]"),
        ("[0.1, 0.3]", "0.1"),
    ):
        plan.write_text(text.replace(old, new))
        assert (
            "--overwrite" in uncanny("run", plan, "--out", out, "--no-pages", code=2).output or new == "0.1"
        )
    plan.write_text(text)
    assert "nothing to record" in uncanny("run", plan, "--out", out, "--no-pages").output
    assert verify_lines(out) == []


def test_with_another_shard_size_the_folder_keeps_its_own(tmp_path: Path) -> None:
    """Shards are the folder's, whatever the plan file says later: no image is lost or doubled."""
    plan, other = Shape(7, 2, 1, False).write(tmp_path), tmp_path / "other.toml"
    other.write_text(plan.read_text().replace("shard_size = 2", "shard_size = 3"))
    uncanny("run", plan, "--out", tmp_path / "once", "--no-pages")
    for parts in ([], ["--part", "1/2"]):
        out = tmp_path / f"out{len(parts)}"
        (tmp_path / "forwards").write_text("21")
        uncanny("run", plan, "--out", out, "--no-pages", code=130)
        uncanny("run", other, "--out", out, "--no-pages", *parts)
        uncanny("run", other, "--out", out, "--no-pages")
        is_same(out, tmp_path / "once")
