"""How the estimate of a study looks in a terminal, and as JSON."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uncannyvalley.cli.printing import console, print_table, shared_and_varying

if TYPE_CHECKING:
    from uncannyvalley.study.estimate import CellEstimate

MOST_ROWS = 40
"""Up to so many runs are listed one by one; of more, those that differ in their seed together."""

MOST_KEYS = 10_000
"""Up to so many runs, the key of the study is worked out: a hash for each."""

BUSY = 1.25
"""Processes for each CPU from which on a machine is called busy."""


@dataclass(frozen=True)
class Planned:
    """A plan file, where its study goes, over how many it is spread, and what its runs take."""

    plan_file: Path
    out: str
    parts: int | None
    workers: int | None
    runs: Sequence["CellEstimate"]

    @property
    def at_least(self) -> bool:
        """Whether the time is a lower bound."""
        return any(one.at_least for one in self.runs)

    @property
    def on_gpu(self) -> bool:
        """Whether it was timed on a GPU."""
        return any(one.device.startswith("cuda") for one in self.runs)

    @property
    def machine(self) -> str:
        """What the timing was made with."""
        import torch

        devices = ", ".join(dict.fromkeys(one.device for one in self.runs))
        busy, cpus = os.getloadavg()[0], os.cpu_count() or 1
        # what else runs here makes the time longer than it need be
        load = f", busy: load {busy:.1f} on {_counted(cpus, 'CPU')}" if busy > BUSY * cpus else ""
        return f"{devices}, {_counted(torch.get_num_threads(), 'thread')}{load}"

    @property
    def key(self) -> str | None:
        """The content key that the folder will have; None for very many runs."""
        from uncannyvalley.study.estimate import study_key

        return study_key(self.runs) if len(self.runs) <= MOST_KEYS else None

    def shares(self) -> dict[str, float]:
        """Seconds of the longest of the parts, and of the workers' shares, where these were asked for and timed."""
        from uncannyvalley.study.estimate import part_seconds

        counts = {"parts": self.parts, "workers": self.workers}
        seconds = {
            name: part_seconds(self.runs, count) for name, count in counts.items() if count is not None
        }
        return {name: one for name, one in seconds.items() if one is not None}

    def command(self) -> str:
        """What to type next."""
        plan_file, out = shlex.quote(str(self.plan_file)), shlex.quote(self.out)
        if self.parts is not None:
            return (
                f"uncanny plan {plan_file} --out {out} --parts {self.parts} --slurm > job.sh && bash job.sh"
            )
        ray = f" --engine ray --workers {self.workers}" if self.workers is not None else ""
        return f"uncanny run {plan_file} --out {out}{ray}"

    def to_dict(self) -> dict[str, Any]:
        """Everything, run by run and walk by walk."""
        runs = [
            {**one.labels, "place": one.place, "key": one.plan.key, **_sums([one]), "walks": [asdict(walk) for walk in one.walks]}
            for one in self.runs
        ]  # fmt: skip
        return {
            "plan": str(self.plan_file), "out": self.out, "key": self.key, "machine": self.machine,
            "total": _sums(self.runs), "seconds_of_a_share": self.shares(), "command": self.command(), "runs": runs,
        }  # fmt: skip


def print_planned(planned: Planned) -> None:
    """A row a run, the sum, how long each share takes, and the next command."""
    groups = _groups(planned.runs)
    alike, axes = shared_and_varying([labels for labels, _ in groups])
    rows = [[*(labels[axis] for axis in axes), *_cells(ones)] for labels, ones in groups]
    if len(rows) > 1:
        rows.append(["all", *[""] * (len(axes) - 1), *_cells(planned.runs)])
    header = [*axes, "images", "shards", "rows", "time", "disk"]
    print_table(_counted(len(planned.runs), "run"), header, rows, left=len(axes))
    console.print()
    for line in [*([f"Every run: {alike}."] if alike else []), *_remarks(planned)]:
        console.print(line, style="dim", soft_wrap=True, markup=False)
    for name, seconds in planned.shares().items():
        each = f"{_bound(planned.runs)}{duration(seconds)} each"
        console.print(f"{_counted(getattr(planned, name), name[:-1])}: {each}.")
    console.print(f"\n  {planned.command()}", soft_wrap=True, markup=False)


def _remarks(planned: Planned) -> list[str]:
    """What the numbers are."""
    beside = [walk.name for walk in planned.runs[0].walks[1:]]
    controls = f"the attack with its controls {' and '.join(beside)}" if beside else "the attack alone"
    lines = [f"Images are those of a run; shards, rows, time and disk hold {controls}."]
    if planned.runs[0].seconds is not None:
        lines.append(
            f"Time is that of one worker as here ({planned.machine}), without its start, scaled from first batches."
        )
    if planned.at_least:
        lines.append("> marks the attack of a library whose first batch took too long to be timed.")
    if planned.key is not None:
        lines.append(f"Content key: {planned.key[:16]}…")
    return lines


def _groups(runs: Sequence["CellEstimate"]) -> list[tuple[dict[str, str], list["CellEstimate"]]]:
    """The runs as they are listed, each row with its labels."""
    if len(runs) <= MOST_ROWS:
        return [(one.labels, [one]) for one in runs]
    folded: dict[tuple[str, ...], list[CellEstimate]] = {}
    for one in runs:
        kind = tuple(label for axis, label in one.labels.items() if axis != "seed")
        folded.setdefault(kind, []).append(one)
    return [(ones[0].labels | {"seed": _seeds(ones)}, ones) for ones in folded.values()]


def _seeds(runs: Sequence["CellEstimate"]) -> str:
    """Their seeds, as a range where they are one."""
    seeds = sorted(one.plan.recording.seed for one in runs)
    if len(seeds) == 1:
        return str(seeds[0])
    is_range = seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]}…{seeds[-1]}" if is_range else f"{len(seeds)} seeds"


def _sums(runs: Sequence["CellEstimate"]) -> dict[str, Any]:
    from uncannyvalley.study.estimate import total

    return {
        "images": sum(one.images for one in runs),
        "shards": sum(one.shards for one in runs),
        "rows": total(one.rows for one in runs),
        "seconds": total(one.seconds for one in runs),
        "bytes": total(one.bytes for one in runs),
        "at_least": any(one.at_least for one in runs),
    }


def _cells(runs: Sequence["CellEstimate"]) -> list[str]:
    sums = _sums(runs)
    fewest, most = min(one.images for one in runs), max(one.images for one in runs)
    return [
        f"{fewest:,}" if fewest == most else f"{fewest:,}…{most:,}",
        f"{sums['shards']:,}",
        "–" if sums["rows"] is None else f"{sums['rows']:,}",
        "–" if sums["seconds"] is None else _bound(runs) + duration(sums["seconds"]),
        "–" if sums["bytes"] is None else _size(sums["bytes"]),
    ]


def _bound(runs: Sequence["CellEstimate"]) -> str:
    return "> " if any(one.at_least for one in runs) else ""


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("s" if count > 1 else "")


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes / 1440:.1f} days"


def _size(count: int) -> str:
    """Bytes with a decimal unit."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
