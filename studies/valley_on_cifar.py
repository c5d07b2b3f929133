"""The uncanny valley of a standard network: ResNet-20 on lossless CIFAR-10 test images, beside both controls.

    python studies/valley_on_cifar.py --shared ../shared --out runs/valley_on_cifar

PGD Linf, eps 8/255, 40 steps of 0.5/255, no random start; `noise` and `assist` of the same length in the same
ball. Records through the command line, so an interrupted study goes on where it stopped. Prints mean κ along
the walk, the phases with their shares, and how much of κ's variance Gini and |φ| leave unexplained; the figure
is `walk.png` in the run's folder.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

import uncannyvalley as uv
from uncannyvalley.analysis.reading import reading
from uncannyvalley.report.pages.report_page import phases_of

STEPS_SHOWN = (0, 1, 2, 3, 4, 5, 7, 9, 12, 20, 40)


def record(
    shared: Path, network: str, eps: str, step_size: str, steps: int, limit: int | None, out: Path
) -> None:
    command = [
        sys.executable, "-m", "uncannyvalley", "record",
        "--model", f"{shared}/models/load_reference.py:load", "--model-arg", f"name={network}",
        "--data", f"parquet:{shared}/data/cifar10/test.parquet",
        "--eps", eps, "--step-size", step_size, "--steps", str(steps), "--out", str(out),
        *([] if limit is None else ["--limit", str(limit)]), "--json",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def mean_kappa(trajectory: uv.Trajectory) -> np.ndarray:
    """Mean κ over the images that were classified correctly, for each step."""
    correct = trajectory.column("adversarial")[:, 0] == 0
    return np.exp(trajectory.column("log_relative_sharpness")[correct]).mean(axis=0)


def print_kappa(walks: dict[str, uv.Trajectory]) -> None:
    steps = [step for step in STEPS_SHOWN if step < next(iter(walks.values())).rows]
    print("mean κ at step " + " ".join(f"{step:>9}" for step in steps))
    for name, trajectory in walks.items():
        values = mean_kappa(trajectory)
        print(f"{name:>14} " + " ".join(f"{values[step]:9.3g}" for step in steps))


def unexplained(trajectory: uv.Trajectory) -> float:
    """Share of the variance of the last step's log κ that log Gini and 2 log|φ| leave: that of geometry."""
    correct = trajectory.column("adversarial")[:, 0] == 0
    kappa = trajectory.column("log_relative_sharpness")[correct, -1]
    geometry = trajectory.column("log_geometry")[correct, -1]
    return float(np.var(geometry) / np.var(kappa))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="folder with models/ and data/"
    )
    parser.add_argument("--network", default="cifar10_resnet20")
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--step-size", default="0.5/255")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/valley_on_cifar"))
    given = parser.parse_args()
    record(given.shared, given.network, given.eps, given.step_size, given.steps, given.limit, given.out)
    run = uv.open_run(given.out)
    found = phases_of(run)
    summary = found.summary()
    print_kappa({run.trajectory.attack: run.trajectory, **run.controls()})
    print()
    print(summary)
    for doubt in summary.diagnostics:
        print(
            f"check: {doubt.name} {doubt.figure:.2f} (limit {doubt.limit:.2f}){', FIRED' if doubt.fired else ''}"
        )
    print()
    print(f"Variance of log κ at the last step that Gini and |φ| leave: {unexplained(run.trajectory):.4%}")
    print(reading(summary))


if __name__ == "__main__":
    main()
