"""Work spread over Ray: every task is answered, whatever happens to the workers, and nothing stays behind."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from uncannyvalley.errors import InputError
from uncannyvalley.study.engines.ray_cluster import Cluster
from uncannyvalley.study.engines.ray_engine import RayEngine

ray = pytest.importorskip("ray")

Make = Callable[[], Callable[[int], Any]]
"""What is made is pickled by value: nothing of this file is imported in the workers."""


def lost(task: int, error: str) -> tuple[str, int, str]:
    return "lost", task, error


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of two CPUs that the tests share; the engine finds it initialised and leaves it alone."""
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20,
        log_to_driver=False, logging_level=logging.ERROR, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, handler)
    os.environ.clear()
    os.environ.update(before)


def squaring() -> Make:
    return lambda: lambda task: task**2


def with_pid(seconds: float = 0.0) -> Make:
    def make() -> Callable[[int], tuple[int, int]]:
        def work(task: int) -> tuple[int, int]:
            time.sleep(seconds)
            return task, os.getpid()

        return work

    return make


def deadly(folder: Path, tasks: set[int], times: int) -> Make:
    """Squares, but kills its process over each of ``tasks`` as often as ``times``; each start leaves a file."""

    def make() -> Callable[[int], int]:
        (folder / f"started-{os.getpid()}").touch()

        def work(task: int) -> int:
            if task in tasks:
                deaths = len(list(folder.glob(f"over-{task}-*")))
                if deaths < times:
                    (folder / f"over-{task}-{deaths}").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            return task**2

        return work

    return make


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def wait_for_end(pids: set[int], seconds: float) -> set[int]:
    """Those of ``pids`` that are still alive after so long."""
    until = time.monotonic() + seconds
    while (alive := {pid for pid in pids if is_alive(pid)}) and time.monotonic() < until:
        time.sleep(0.1)
    return alive


@pytest.mark.usefixtures("cluster")
class TestInOneCluster:
    def test_reports_equal_those_of_one_process(self) -> None:
        engine = RayEngine(squaring(), lost, workers=2)
        assert sorted(engine.map(range(200))) == [task**2 for task in range(200)]
        assert ray.is_initialized()

    def test_there_is_a_worker_for_each_cpu_and_it_loads_once(self, tmp_path: Path) -> None:
        def make() -> Callable[[int], int]:
            (tmp_path / f"started-{os.getpid()}").touch()

            def work(task: int) -> int:
                until = time.monotonic() + 60
                while len(list(tmp_path.glob("started-*"))) < 2 and time.monotonic() < until:
                    time.sleep(0.05)
                return os.getpid()

            return work

        pids = list(RayEngine(make, lost).map(range(50)))
        assert len(list(tmp_path.glob("started-*"))) == 2
        assert len(pids) == 50

    def test_draws_tasks_only_as_there_is_room(self) -> None:
        drawn = 0

        def tasks() -> Iterator[int]:
            nonlocal drawn
            while True:
                drawn += 1
                yield drawn

        reports = RayEngine(squaring(), lost, workers=2).map(tasks())
        ahead = []
        for got in range(300):
            next(reports)
            ahead.append(drawn - got - 1)
        reports.close()
        assert max(ahead) <= 2 * 2 + 1
        assert ahead[-1] >= 1  # nobody rests while the reports are read

    def test_slow_tasks_do_not_wait_behind_each_other(self) -> None:
        """Nobody holds a second slow task that another could begin; three workers share two CPUs."""
        drawn, pids, ahead = 0, set(), []

        def tasks() -> Iterator[int]:
            nonlocal drawn
            while drawn < 40:
                drawn += 1
                yield drawn

        for got, (_, pid) in enumerate(RayEngine(with_pid(0.55), lost, workers=3).map(tasks())):
            pids.add(pid)
            ahead.append(drawn - got - 1)
            if len(pids) == 3:
                break
        assert len(pids) == 3
        assert max(ahead) <= 3

    def test_does_again_what_killed_workers_were_at(self, tmp_path: Path) -> None:
        """Both killed at once, then three in a row."""
        killed = {0, 1, 7, 8, 9}
        engine = RayEngine(deadly(tmp_path, killed, times=1), lost, workers=2)
        assert sorted(engine.map(range(12))) == [task**2 for task in range(12)]
        assert len(list(tmp_path.glob("over-*"))) == len(killed)  # for real

    def test_reports_a_task_that_kills_every_worker(self, tmp_path: Path) -> None:
        engine = RayEngine(deadly(tmp_path, {4}, times=99), lost, workers=2, restarts=1)
        reports = list(engine.map(range(9)))
        failed = [report for report in reports if isinstance(report, tuple)]
        assert [report[:2] for report in failed] == [("lost", 4)]
        assert "2 workers died over it" in failed[0][2]
        assert sorted(set(reports) - set(failed)) == [task**2 for task in range(9) if task != 4]
        assert len(list(tmp_path.glob("over-4-*"))) in (
            2,
            3,
        )  # a death with another task beside it is not counted

    def test_the_neighbours_of_a_deadly_task_are_not_lost(self, tmp_path: Path) -> None:
        """Neither the one before, whose report may die with the worker, nor the one that waited behind."""
        engine = RayEngine(deadly(tmp_path, {5, 6}, times=99), lost, workers=1, restarts=0)
        reports = list(engine.map(range(12)))
        assert [report[1] for report in reports if isinstance(report, tuple)] == [5, 6]
        assert len(reports) == 12

    def test_workers_that_cannot_load_lose_the_tasks_and_say_why(self, tmp_path: Path) -> None:
        def make() -> Callable[[int], int]:
            (tmp_path / f"started-{os.getpid()}").touch()
            raise InputError("weights.pt is not on this machine")

        reports = list(RayEngine(make, lost, workers=2).map(range(20)))
        assert sorted(report[1] for report in reports) == list(range(20))
        assert all("InputError: weights.pt is not on this machine" in report[2] for report in reports)
        assert len(list(tmp_path.glob("started-*"))) == 2

    def test_one_that_cannot_load_leaves_the_tasks_to_the_others(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        def make() -> Callable[[int], int]:
            with contextlib.suppress(FileExistsError):
                (tmp_path / "first").touch(exist_ok=False)
                raise InputError("no such file here")
            return lambda task: task**2

        assert sorted(RayEngine(make, lost, workers=2).map(range(30))) == [task**2 for task in range(30)]
        assert "no such file here" in caplog.text

    def test_a_worker_that_dies_while_it_starts_is_not_started_for_ever(self, tmp_path: Path) -> None:
        def make() -> Callable[[int], int]:
            (tmp_path / f"started-{os.getpid()}").touch()
            os._exit(1)

        reports = list(RayEngine(make, lost, workers=1, restarts=1).map(range(3)))
        assert [report[1] for report in reports] == [0, 1, 2]
        assert all("died 2 times while it started" in report[2] for report in reports)
        assert len(list(tmp_path.glob("started-*"))) == 2

    def test_what_cannot_be_pickled_or_raises_is_lost_alone(self) -> None:
        def make() -> Callable[[Any], Any]:
            def work(task: Any) -> Any:
                if task == 1:
                    raise ValueError("no\nsuch shard")
                if task == 2:
                    sys.exit("enough")
                return threading.Lock() if task == 3 else task

            return work

        unsendable = threading.Lock()
        reports = list(RayEngine(make, lost, workers=1).map([0, 1, 2, 3, unsendable, 5]))
        assert [report for report in reports if not isinstance(report, tuple)] == [0, 5]
        reasons = {report[1]: report[2] for report in reports if isinstance(report, tuple)}
        assert reasons[1] == "ValueError: no such shard"
        assert reasons[2] == "SystemExit: enough"
        assert "pickle" in reasons[3]
        assert "pickle" in reasons[unsendable]

    @pytest.mark.parametrize("how", ["closed", "tasks raise", "interrupted"])
    def test_workers_end_with_the_reports(self, how: str) -> None:
        def tasks() -> Iterator[int]:
            yield from range(20)
            raise OSError("the list of tasks cannot be read")

        reports = RayEngine(with_pid(0.0 if how == "tasks raise" else 0.6), lost, workers=2).map(tasks())
        pids = {next(reports)[1] for _ in range(2)}
        assert all(is_alive(pid) for pid in pids)
        if how == "closed":
            reports.close()
        elif how == "tasks raise":
            with pytest.raises(OSError, match="cannot be read"):
                list(reports)
        else:
            # a process that a shell has put into the background ignores SIGINT
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                list(reports)
            signal.signal(signal.SIGINT, before)
        assert not wait_for_end(pids, 10)
        assert ray.is_initialized()

    def test_the_cpus_are_shared_among_the_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def make() -> Callable[[int], tuple[int, str]]:
            import torch

            return lambda task: (torch.get_num_threads(), os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))

        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
        assert list(RayEngine(make, lost, workers=2, gpus=0.0).map([0])) == [(2, "")]
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert Cluster(None, 2, None).threads == 1

    def test_gpus_that_are_not_there(self) -> None:
        with pytest.raises(InputError, match=r"each worker was to have 0\.5 GPUs, and Ray finds 0"):
            list(RayEngine(squaring(), lost, gpus=0.5).map([1]))


def test_nothing_is_started_without_tasks() -> None:
    assert list(RayEngine(squaring(), lost, workers=2, address="127.0.0.1:1").map([])) == []


@pytest.mark.parametrize(
    ("workers", "gpus", "expected"),
    [
        (None, None, (4, 1)),
        (None, 0.5, (8, 0.5)),
        (None, 0.0, (16, 0)),
        (3, None, (3, 1)),
        (None, 0.1, (40, 0.1)),
    ],
)
def test_workers_and_their_gpus_follow_the_cluster(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, gpus: float | None, expected: tuple[int, float]
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 4.0})
    cluster = Cluster("auto", workers, gpus)
    assert (cluster.workers, cluster.gpus) == expected


@pytest.mark.parametrize(("given", "says"), [({"workers": 0}, "workers"), ({"gpus": -0.5}, "gpus")])
def test_refuses_impossible_numbers(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=f"{says} must be at least"):
        RayEngine(squaring(), lost, **given)


def test_missing_ray_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "uncannyvalley\[ray\]"'):
        RayEngine(squaring(), lost)


SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
from uncannyvalley.study.engines.ray_engine import RayEngine

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])

def make():
    def work(task):
        (folder / f"worker-{os.getpid()}").touch()
        if task == 3 and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds)
        return task ** 2
    return work

before = signal.getsignal(signal.SIGTERM), dict(os.environ)
reports = RayEngine(make, lambda task, error: error, workers=2).map(range(12))
print(json.dumps(sorted(reports)))
assert (signal.getsignal(signal.SIGTERM), dict(os.environ)) == before
"""


def processes_below(folder: Path) -> set[int]:
    """Ray's processes, known by their folder on the command line, and the workers, which left their numbers."""
    found = {int(path.name.removeprefix("worker-")) for path in folder.glob("worker-*")}
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in status.read_bytes():
                found.add(int(status.parent.name))
    return found


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder short enough for Ray's sockets; what a killed process leaves in it goes with it."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="uv-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def start_script(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment | {"TMPDIR": str(folder)},
    )  # fmt: skip


def test_a_cluster_of_our_own_is_quiet_and_leaves_nothing(short_path: Path) -> None:
    with start_script(short_path, 0.0) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out) == [task**2 for task in range(12)]
    assert (short_path / "died").exists()
    assert not wait_for_end(processes_below(short_path), 10)
    assert not list(short_path.glob("uncanny-ray-*"))


def test_no_process_outlives_a_killed_one(short_path: Path) -> None:
    with start_script(short_path, 60.0) as process:
        until = time.monotonic() + 60
        while len(list(short_path.glob("worker-*"))) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        started = processes_below(short_path) - {process.pid}
        assert len(started) >= 4  # two workers, and Ray's own
        process.kill()
        process.communicate(timeout=30)
    assert not wait_for_end(started, 15)
