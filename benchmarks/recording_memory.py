"""Recording many batches needs no more memory than recording one: what is kept of a batch is its numbers.

    python benchmarks/recording_memory.py [--images 700] [--batch 64] [--steps 20] [--json]

Two fresh processes hold the same images and the same network and record PGD with all closed-form measures:
one records a single batch, the other all images, batch after batch. Each reports its peak of resident memory
(getrusage) at the end and, as a baseline, the peak after imports, loading and splitting. The goal is a ratio
of at most 1.2 between the two peaks.

The network and the images are found in the folder named by UNCANNY_SHARED, else in ../shared.
"""

import argparse
import json
import resource
import subprocess
import sys

from rich.console import Console
from rich.table import Table

GOAL = 1.2


def peak_megabytes() -> float:
    """The largest resident memory of this process so far."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def record_in_this_process(recorded: int, options: argparse.Namespace) -> dict[str, float]:
    """Peak before and after recording the first ``recorded`` of all images."""
    # imported here: a child's peak begins with the memory of the process that started it
    import torch
    from recording_cost import EPS, STEP_SIZE, load_images, load_network

    import uncannyvalley

    if options.threads:
        torch.set_num_threads(options.threads)
    x, y = load_images(options.images)
    model = uncannyvalley.split(load_network(), x)
    attack = uncannyvalley.attacks.pgd(eps=EPS, step_size=STEP_SIZE)
    baseline = peak_megabytes()
    trajectory = uncannyvalley.record(
        model, x[:recorded], y[:recorded], attack, steps=options.steps, batch_size=options.batch
    )
    kept = trajectory.table.nbytes / 1e6
    return {"images": recorded, "baseline_mb": baseline, "peak_mb": peak_megabytes(), "kept_mb": kept}


def record_in_own_process(recorded: int) -> dict[str, float]:
    """The same in a fresh process, with the options of this one."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", str(recorded)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def show(rows: list[dict[str, float]], ratios: dict[str, float], options: argparse.Namespace) -> None:
    table = Table(title=f"recording {options.steps} PGD steps, batches of {options.batch}")
    headings = ("images", "baseline MB", "peak MB", "recording added MB", "trajectory holds MB")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        added = row["peak_mb"] - row["baseline_mb"]
        numbers = [f"{one:.0f}" for one in (row["images"], row["baseline_mb"], row["peak_mb"], added)]
        table.add_row(*numbers, f"{row['kept_mb']:.1f}")
    table.add_section()
    table.add_row("ratio", "", f"{ratios['peak']:.3f}", f"{ratios['added']:.3f}", "")
    console = Console()
    console.print(table)
    verdict = "held" if ratios["peak"] <= GOAL else "MISSED"
    console.print(f"goal: peak ratio at most {GOAL}: {verdict}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=700)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, help="torch's own choice where left out")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(record_in_this_process(options.only, options)))
        return
    rows = [record_in_own_process(count) for count in (options.batch, options.images)]
    added = [row["peak_mb"] - row["baseline_mb"] for row in rows]
    ratios = {"peak": rows[1]["peak_mb"] / rows[0]["peak_mb"], "added": added[1] / added[0]}
    if options.json:
        print(json.dumps({"runs": rows, "ratio": ratios, "goal": GOAL}, indent=2))
    else:
        show(rows, ratios, options)


if __name__ == "__main__":
    main()
