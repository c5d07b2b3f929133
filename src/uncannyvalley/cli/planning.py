"""``uncanny plan``: what a plan file will run, how long that takes, and the script that spreads it over a cluster."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import aside, print_json
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from uncannyvalley.cli.estimate_tables import Planned
    from uncannyvalley.study.estimate import CellEstimate


def plan(
    plan_file: Annotated[
        Path, typer.Argument(help="The plan file (TOML).", metavar="PLAN", show_default=False)
    ],
    out: Annotated[
        str | None,
        typer.Option(
            help="Folder of the study to be; runs/NAME of the plan if left out.", show_default=False
        ),
    ] = None,
    parts: Annotated[
        int | None, typer.Option(help="Parts of a job array: how long does one take?", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Ray workers: how long do they take together?", show_default=False)
    ] = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Print a batch script for Slurm, and nothing else; with --parts.")
    ] = False,
    cpus: Annotated[
        int | None,
        typer.Option(
            help="CPUs of a part in the script; as many as threads here if left out.", show_default=False
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Time on this one: auto, cpu, cuda, …; the plan's if left out.", show_default=False
        ),
    ] = None,
    time: Annotated[
        bool, typer.Option("--time/--no-time", help="Time the first batch of each kind of walk.")
    ] = True,
    json: options.Json = False,
) -> None:
    """Say what a plan file will run: shards, rows, time and disk of each run, from its first batch.

    A job array in one line: uncanny plan PLAN --parts 40 --slurm > job.sh && bash job.sh
    """
    from uncannyvalley.checks import check_count
    from uncannyvalley.cli.estimate_tables import Planned, print_planned
    from uncannyvalley.study.estimate import estimate
    from uncannyvalley.study.plan_file.grid import read_grid

    for name, count in (("--parts", parts), ("--workers", workers), ("--cpus", cpus)):
        if count is not None:
            check_count(name, count, 1)
    if slurm and (parts is None or json):
        raise InputError(
            "--slurm prints a batch script and nothing else: it takes --parts N, and goes without --json"
        )
    cells = read_grid(plan_file).cells()
    on_gpu = any(cell.request.device.startswith("cuda") for cell in cells)
    cells = [cell.asking(device=device) for cell in cells]
    with aside.status("reading the plan") as status:
        found = estimate(cells, time=time, say=lambda what: status.update(f"timing {what}"))
    _check_parts(found, parts)
    planned = Planned(plan_file, out or f"runs/{plan_file.stem}", parts, workers, found)
    if slurm:
        _print_script(planned, cpus, on_gpu)
    elif json:
        print_json(planned.to_dict())
    else:
        print_planned(planned)


def _check_parts(found: Sequence["CellEstimate"], parts: int | None) -> None:
    shards = sum(one.shards for one in found)
    if parts is not None and parts > shards:
        raise InputError(
            f"the study has {shards} shards, too few for {parts} parts; give --parts {shards} or fewer, or a smaller "
            "shard_size in the plan"
        )


def _print_script(planned: "Planned", cpus: int | None, on_gpu: bool) -> None:
    """The script on standard output, and remarks beside it."""
    import torch

    from uncannyvalley.cli.estimate_tables import duration
    from uncannyvalley.study.slurm import MARGIN, MOST_PARTS, batch_script

    parts = planned.parts or 1
    seconds = planned.shares().get("parts")
    script = batch_script(
        planned.plan_file, planned.out, parts, seconds=seconds, cpus=cpus or torch.get_num_threads(), on_gpu=on_gpu or planned.on_gpu
    )  # fmt: skip
    print(script, end="")
    if seconds is None:
        aside.print("Nothing was timed: set --time in the script.")
    elif planned.at_least:
        aside.print("The attack of a library was too long to be timed: set --time in the script.")
    else:
        about = f"The longest part takes {duration(seconds)} on this machine ({planned.machine})"
        aside.print(
            f"{about}; the script asks for {MARGIN:g} times that, and 10 minutes at least.", soft_wrap=True
        )
    if parts > MOST_PARTS:
        aside.print(
            f"Slurm takes array numbers up to {MOST_PARTS} unless the cluster has raised it; see: scontrol show config | "
            "grep MaxArraySize",
            soft_wrap=True,
        )
