"""Peak memory of curvature over many images: each count in a process of its own.

python benchmarks/curvature_memory.py [--shared ../shared] [--images 64 700]
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import torch

import uncannyvalley
from uncannyvalley import data, zoo


def peak() -> float:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(shared: Path, count: int) -> None:
    torch.set_num_threads(1)
    net = zoo.load(f"{shared}/models/load_reference.py:load", {"name": "cifar10_resnet20"})
    images = data.load(f"parquet:{shared}/data/cifar10/test.parquet").first(count)
    before = peak()
    uncannyvalley.curvature(net, images[:], images.labels, "8.main.0", "top_eigenvalue")
    print(f"{count:6} {before:12.0f} {peak():9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--images", type=int, nargs="*", default=[64, 700])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        measure(given.shared, given.one)
        return
    print("images    before MB   peak MB", flush=True)
    for count in given.images:
        command = [sys.executable, __file__, "--shared", str(given.shared), "--one", str(count)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
