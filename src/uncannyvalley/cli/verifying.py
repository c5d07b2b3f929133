"""``uncanny verify``: is every byte as it was written, and everything there?"""

from contextlib import nullcontext

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import aside, console, print_json


def verify(path: options.StudyDir, json: options.Json = False) -> None:
    """Check every byte of a run, a study or trainings: one line for each fault, and exit code 1 where there is one."""
    from uncannyvalley.train.verifying import verify

    with nullcontext() if json else aside.status("Reading every file …"):
        faults = [fault.message for fault in verify(path)]
    if json:
        print_json({"folder": path, "faults": faults})
    else:
        for fault in faults:
            print(fault)
        if not faults:
            console.print(
                f"{path}: no faults. Every byte is as it was written.", markup=False, soft_wrap=True
            )
    if faults:
        raise typer.Exit(1)
