"""What spreading a study costs: workers on a local Ray cluster against plain processes, and the driver on its own.

    python benchmarks/spreading.py [--shared ../shared] [--rounds 3] [--limit 1024] [--full]

Workers: one plan (ResNet-20, CIFAR-10 images, 10 steps of PGD, shards of 32 images, no controls) run by ``uncanny run``
in one process, in two processes as parts 1/2 and 2/2, and on a Ray cluster of its own with one and with two workers;
one thread each. Times begin when each worker has finished two shards on average, and end with the last shard. CPU time
is that of all processes, Ray's own too (Linux). Where other processes come and go, CPU time scatters less than wall time.

Driver: plans of 10 000 to 1 000 000 shards (``--full``: 10 000 000) in runs of 1 000, carried out by an executor that does
nothing: what is left is drawing the tasks, looking for finished shards, and keeping the manifests. Each in a process
of its own, whose largest resident memory is printed. Then tasks that do nothing, sent through Ray to two workers.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from timing import console, print_table

from uncannyvalley.run.request import Request, make_work
from uncannyvalley.study.driver import carry_out
from uncannyvalley.study.engines.ray_engine import RayEngine
from uncannyvalley.study.recording import make_folders
from uncannyvalley.study.task import ATTACK, Report, Task, Walk, lost

TAG = "UNCANNY_SPREADING"
SHARD = 32
RUN_SHARDS = 1000
CLOCK = os.sysconf("SC_CLK_TCK")

PLAN = """
shard_size = {shard}
controls = false
keep_images = 0
batch_size = {shard}
[[models]]
name = "resnet20"
model = "{shared}/models/load_reference.py:load"
arguments = {{name = "cifar10_resnet20"}}
[[data]]
name = "cifar"
data = "parquet:{shared}/data/cifar10/test.parquet"
limit = {limit}
[[attacks]]
attack = "pgd"
eps = "8/255"
step_size = "2/255"
steps = 10
"""


@dataclass
class Spent:
    """One way of running the plan, in one round; per image after everybody is warm."""

    wall: float
    cpu: float
    first: float  # seconds until the first shard
    processes: int
    memory: float  # MB, shared pages divided among those that share them


def ways(plan: Path, out: Path) -> dict[str, list[list[str]]]:
    """The commands of each way."""
    run = [sys.executable, "-m", "uncannyvalley", "run", str(plan), "--out", str(out), "--no-pages", "--json"]
    return {
        "1 process": [run],
        "2 processes, --part 1/2 and 2/2": [[*run, "--part", part] for part in ("1/2", "2/2")],
        "Ray, 1 worker": [[*run, "--engine", "ray", "--workers", "1"]],
        "Ray, 2 workers": [[*run, "--engine", "ray", "--workers", "2"]],
    }


@dataclass
class Family:
    """All processes that descend from the ones started here, and the CPU seconds last seen of each."""

    tag: str
    cpu: dict[int, float] = field(default_factory=dict)
    strangers: set[int] = field(default_factory=set)

    def look(self) -> float:
        """CPU seconds of all members so far, those of ended ones as last seen."""
        for entry in os.listdir("/proc"):
            if entry.isdigit() and (pid := int(entry)) not in self.strangers:
                try:
                    fields = _read(pid, "stat").rpartition(b")")[2].split()
                    if pid not in self.cpu and not self._has(pid, int(fields[1])):
                        self.strangers.add(pid)
                        continue
                    self.cpu[pid] = (int(fields[11]) + int(fields[12])) / CLOCK
                except OSError:
                    continue  # it has just ended
        return sum(self.cpu.values())

    def _has(self, pid: int, parent: int) -> bool:
        # Ray's agents write their title over their environment
        return parent in self.cpu or f"{TAG}={self.tag}".encode() in _read(pid, "environ")

    def memory(self) -> float:
        total = 0
        for pid in self.cpu:
            try:
                lines = _read(pid, "smaps_rollup").splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith(b"Pss:"))
        return total / 1024


def _read(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def spend(commands: list[list[str]], out: Path, limit: int) -> Spent:
    """Run one way and watch its shards come in."""
    workers, total = max(2, len(commands)), -(-limit // SHARD)
    family = Family(os.urandom(4).hex())
    environment = os.environ | {TAG: family.tag, "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    started = [
        subprocess.Popen(one, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for one in commands
    ]
    first = warm = base = 0.0
    already, memory, looked = 0, 0.0, 0.0
    while (done := _shards(out)) < total:
        now = time.perf_counter()
        if any(process.poll() not in (None, 0) for process in started):
            raise SystemExit("\n".join((process.communicate()[1] or b"").decode() for process in started))
        if done and not first:
            first = now - began
        if done >= 2 * workers and not warm:
            warm, already, base = now, done, family.look()
            memory = family.memory()
        if now - looked > 0.25:
            family.look()
            looked = now
        time.sleep(0.02)
    wall, cpu = time.perf_counter() - warm, family.look() - base
    for process in started:
        process.communicate()
    images = limit - already * SHARD
    return Spent(wall / images, cpu / images, first, len(family.cpu), memory)


def _shards(out: Path) -> int:
    folder = out / "shards"
    if not folder.is_dir():
        return 0
    return sum(name.startswith("part-") and name.endswith(".parquet") for name in os.listdir(folder))


def compare_workers(shared: Path, limit: int, rounds: int) -> None:
    found: dict[str, list[Spent]] = {name: [] for name in ways(Path(), Path())}
    with tempfile.TemporaryDirectory(prefix="uv-") as folder:
        plan = Path(folder) / "cifar.toml"
        plan.write_text(PLAN.format(shared=shared.resolve(), limit=limit, shard=SHARD))
        for lap in range(rounds):
            names = list(ways(plan, Path(folder)))
            for name in names if lap % 2 == 0 else reversed(names):
                out = Path(folder) / f"{lap}-{names.index(name)}"
                found[name].append(spend(ways(plan, out)[name], out, limit))
    plain = found["2 processes, --part 1/2 and 2/2"]

    def median(values: Iterable[float]) -> float:
        return statistics.median(values)

    def over(mine: list[Spent], get: Callable[[Spent], float]) -> str:
        return f"{median(get(a) / get(b) for a, b in zip(mine, plain, strict=True)):.3f}"

    rows = [
        [
            name,
            f"{1 / median(one.wall for one in mine):.1f}",
            f"{1000 * median(one.cpu for one in mine):.1f}",
            over(mine, lambda one: one.wall),
            over(mine, lambda one: one.cpu),
            f"{median(one.first for one in mine):.1f}",
            str(mine[-1].processes),
            f"{median(one.memory for one in mine):.0f}",
        ]
        for name, mine in found.items()
    ]
    print_table(
        f"ResNet-20, {limit} images in shards of {SHARD}, 10 PGD steps, {rounds} rounds",
        ["way", "images/s", "CPU ms/image", "wall / plain 2", "CPU / plain 2", "first shard, s", "processes", "MB"],
        rows,
        caption="medians over rounds; ratios within a round; MB: of all processes, shared pages counted once",
    )  # fmt: skip


class Idle:
    """The executor that does nothing."""

    name = "idle"

    def map(self, tasks: Iterable[Task]) -> Iterator[Report]:
        for task in tasks:
            yield idle_report(task)


def idle_report(task: Task) -> Report:
    entry = {"rows": 32 * 11, "sha256": "0" * 64, "seconds": 1.0}
    return Report(str(task.walk.place), task.shard, entry, {"engine": "idle", "threads": 1})


def idle_walks(shards: int, out: Path) -> list[Walk]:
    """Runs of 1 000 shards each that differ in their seed."""
    plan, _ = make_work(Request(limit=8, shard_examples=1))
    data = plan.data.model_copy(update={"examples": RUN_SHARDS})
    walks = []
    for seed in range(shards // RUN_SHARDS):
        recording = plan.recording.model_copy(update={"seed": seed})
        own = plan.model_copy(update={"data": data, "recording": recording})
        walks.append(Walk(out / f"seed={seed}", ATTACK, own, Request(seed=seed)))
    return walks


def drive(shards: int, through_ray: bool) -> None:
    """What one process of ``measure_driver`` does: prints its seconds and its largest memory, and that before."""
    with tempfile.TemporaryDirectory(prefix="uv-") as folder:
        walks = idle_walks(shards, Path(folder))
        engine = RayEngine(lambda: idle_report, lost, workers=2) if through_ray else Idle()
        before, marks = _largest(), [_clocks()]
        make_folders("", walks, Path(folder))

        def done(_: Report) -> None:
            marks[1:] = [marks[1] if len(marks) > 1 else _clocks(), _clocks()]

        outcome = carry_out(walks, engine, done=done)
        marks.append(_clocks())
    assert outcome.recorded == shards
    # the cluster starts before the first report and ends after the last one
    began, ended = marks[1:3] if through_ray else (marks[0], marks[-1])
    wall, cpu = ended[0] - began[0], ended[1] - began[1]
    print(json.dumps({"wall": wall, "cpu": cpu, "mb": _largest(), "before": before}))


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _largest() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_driver(sizes: Iterable[int], through_ray: bool) -> list[list[str]]:
    rows = []
    for shards in sizes:
        command = [sys.executable, __file__, "--drive", str(shards), *(["--ray"] if through_ray else [])]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        name = "Ray, 2 idle workers" if through_ray else "an executor that does nothing"
        each = [f"{1e6 * found[clock] / shards:.0f}" for clock in ("cpu", "wall")]
        rows.append(
            [name, f"{shards:,}".replace(",", " "), *each, f"{found['mb']:.0f}", f"{found['before']:.0f}"]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=1024)
    parser.add_argument("--full", action="store_true", help="10 000 000 shards too: about half an hour")
    parser.add_argument("--only", choices=("workers", "driver"))
    parser.add_argument("--drive", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ray", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive is not None:
        drive(given.drive, given.ray)
        return
    if given.only != "driver":
        compare_workers(given.shared, given.limit, given.rounds)
    if given.only != "workers":
        sizes = [10**4, 10**5, 10**6, *([10**7] if given.full else [])]
        print_table(
            "The driver's process, runs of 1 000 shards",
            ["engine", "shards", "CPU µs/shard", "wall µs/shard", "largest MB", "MB before"],
            measure_driver(sizes, False) + measure_driver(sizes[:2], True),
        )
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    console().print(f"{os.cpu_count()} CPUs, load {load} at the end (1, 5, 15 minutes)", highlight=False)


if __name__ == "__main__":
    main()
