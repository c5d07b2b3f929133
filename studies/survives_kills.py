"""SIGKILL at random moments: is the table, after resuming, the one of an undisturbed run?

    python studies/survives_kills.py --out build/survives_kills

Half of the moments are uniform over the clock of an undisturbed run, so they hit the start, the walks and the end; half
are uniform over its file operations (and up to 3 ms later), so they hit every write, rename and list in the folder. After
each kill, in one case of three the resuming command is killed too; then it runs to its end, and the folder is held against
the undisturbed one: every Parquet file with the same rows in the same bits, no file lost, none left over, ``uncanny verify``
content, and the same command finding nothing to do. Ray workers are killed from outside while the driver goes on.
"""

import argparse
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from killing import SIGKILLED, Death, differences, kill_randomly, kill_workers, live
from typer.testing import CliRunner

from uncannyvalley.cli.app import app

PLAN = """shard_size = 4
keep_images = 6
[[data]]
data = "digits"
limit = 12
[[attacks]]
attack = "pgd"
eps = [0.2, 0.3]
steps = 4
"""
RECORD = ("--eps", "0.3", "--steps", "4", "--limit", "24", "--shard-size", "4", "--keep-images", "6")


@dataclass(frozen=True)
class Scenario:
    """What is killed, what finishes the folder after it, and how many kills of 30."""

    name: str
    killed: list[str]
    finish: list[list[str]]
    kills: int
    workers: int = 0


def scenarios(plan: Path, out: Path) -> list[Scenario]:
    run = ["run", str(plan), "--out", str(out)]
    ray = [*run, "--engine", "ray", "--workers", "2"]
    record = ["record", *RECORD, "--out", str(out)]
    parts = [[*run, "--part", f"{number}/2"] for number in (1, 2)]
    return [
        Scenario("record", record, [record], 8),
        Scenario("run", run, [run], 8),
        Scenario("run --part 1/2", parts[0], [*parts, run], 5),
        Scenario("run --engine ray, driver", ray, [ray], 5),
        Scenario("run --engine ray, workers", ray, [], 4, workers=1),
    ]


def uncanny(*arguments: str) -> tuple[int, str]:
    """The command line in this process: exit code and what it said."""
    ended = CliRunner().invoke(app, arguments)
    return ended.exit_code, ended.output


class Grave:
    """One scenario: its undisturbed folder and the trials in another one."""

    def __init__(self, scenario: Scenario, place: Path, draw: random.Random) -> None:
        self.scenario, self.draw = scenario, draw
        self.out, self.undisturbed, self.log = (place / name for name in ("run", "undisturbed", "log"))
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        self.life = live(scenario.killed, self.out, self.log)
        for command in scenario.finish[1:]:
            live(command, self.out, self.log)
        self.out.rename(self.undisturbed)

    def trial(self) -> tuple[list[Death], list[str]]:
        """Deaths of one folder, and what is wrong with it after the last command."""
        shutil.rmtree(self.out, ignore_errors=True)
        if self.scenario.workers:
            deaths = [self._worker_death()]
        else:
            deaths = [self._death(self.scenario.killed)]
            if self.draw.random() < 1 / 3:
                deaths.append(self._death(self.scenario.finish[0]))
        for command in self.scenario.finish:
            live(command, self.out, self.log)
        return deaths, self.faults()

    def _death(self, command: list[str]) -> Death:
        return kill_randomly(command, self.out, self.log, self.life, self.draw)

    def _worker_death(self) -> Death:
        delay = self.draw.uniform(0, 0.5 * self.life.seconds)
        killed, _ = kill_workers(
            self.scenario.killed, self.out, self.log, delay, self.scenario.workers, self.draw
        )
        return Death(f"{killed} worker, {delay:.1f} s old", "–", SIGKILLED if killed else 0)

    def faults(self) -> list[str]:
        found = differences(self.out, self.undisturbed)
        code, said = uncanny("verify", str(self.out))
        if code:
            found.append(f"verify: {said.strip()}")
        before = {path: path.stat().st_mtime_ns for path in self.out.rglob("shards/*")}
        code, said = uncanny(*(self.scenario.finish or [self.scenario.killed])[-1])
        if code or "nothing to record" not in said:
            found.append(f"the same command again said: {said.strip()}")
        if before != {path: path.stat().st_mtime_ns for path in self.out.rglob("shards/*")}:
            found.append("the same command again wrote shards")
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/survives_kills"))
    parser.add_argument("--only", nargs="*", help="scenarios by a part of their name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, help="of each scenario, instead of 30 in all")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    plan = given.out / "plan.toml"
    plan.write_text(PLAN)
    draw = random.Random(given.seed)
    print(f"{'killed':28}{'moment':>24}   {'last operation in the folder':60}{'after resuming'}")
    kills = wrong = 0
    for scenario in scenarios(plan, given.out / "place" / "run"):
        if given.only and not any(one in scenario.name for one in given.only):
            continue
        grave = Grave(scenario, given.out / "place", draw)
        done = 0
        while done < (given.kills or scenario.kills):
            deaths, faults = grave.trial()
            killed = [one for one in deaths if one.killed]
            done += len(killed)
            wrong += bool(faults)
            for number, one in enumerate(deaths, 1):
                verdict = "; ".join(faults) or "the same bits"
                how = one.how if one.killed else f"ended before {one.how}"
                after = verdict if number == len(deaths) else "resumed, and killed again"
                print(f"{scenario.name:28}{how:>24}   {one.last:60}{after}", flush=True)
        kills += done
    print(f"{kills} kills, {wrong} folders with a fault")


if __name__ == "__main__":
    main()
