"""What every example is given: where real networks and images lie, how small a quick run is, where figures go.

UNCANNY_SHARED  folder with models/ and data/ of the examples on MNIST, CIFAR-10 and a language model (default: a folder
                ``shared`` beside the repository); the option --shared names it too
UNCANNY_QUICK   1 for runs of a few seconds, as in continuous integration: less data, same directions of findings
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from uncannyvalley import InputError
from uncannyvalley.data import Images

REPOSITORY = Path(__file__).resolve().parents[1]

COLOURS = {
    "clean": "#222222", "noise": "#7A7A7A", "assist": "#0072B2", "fgsm": "#E69F00", "pgd": "#D55E00",
    "other": "#009E73",
}  # fmt: skip
"""Okabe and Ito's colours, told apart by readers with any colour vision."""


def quick(in_full: int, in_quick: int) -> int:
    """The first number, or the second where UNCANNY_QUICK asks for small runs."""
    return in_quick if os.environ.get("UNCANNY_QUICK", "") not in ("", "0") else in_full


def parser_of(text: str | None, *, shared: bool = False) -> argparse.ArgumentParser:
    """A command line with --out and, where an example needs it, --shared."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("examples-out"), help="folder for figures and runs")
    if shared:
        folder = Path(os.environ.get("UNCANNY_SHARED", REPOSITORY.parent / "shared"))
        parser.add_argument("--shared", type=Path, default=folder, help="folder with models/ and data/")
    return parser


def in_shared(shared: Path, name: str, instead: str) -> Path:
    """``shared/name``; InputError that says what to give ``instead`` where it is missing."""
    if not (found := shared / name).exists():
        raise InputError(
            f"expected {found}, and it is not there; name the folder by --shared or UNCANNY_SHARED, or give {instead}"
        )
    return found


def right_ones(net: nn.Module, images: Images, count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` images that ``net`` classifies correctly, with their labels: only these can be flipped."""
    with torch.no_grad():
        right = torch.cat(
            [net(images[first : first + 256]).argmax(dim=1) for first in range(0, len(images), 256)]
        )
    chosen = (right == images.labels).nonzero().flatten()[:count]
    if len(chosen) < count:
        raise InputError(
            f"expected {count} images that the network gets right, found {len(chosen)}; give more data"
        )
    return images[:][chosen], images.labels[chosen]


def uncanny(*words: str) -> str:
    """Run one command as it is typed, and return what it prints; InputError with its own words where it fails."""
    print(f"\n$ uncanny {' '.join(words)}", flush=True)
    command = [sys.executable, "-m", "uncannyvalley", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"uncanny {words[0]} failed: {done.stderr.strip()}")
    return done.stdout.rstrip()


def save(figure: Figure, out: Path, name: str) -> None:
    """Write a figure into the folder ``out`` and say where it is."""
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / name, dpi=130)
    print(f"\nFigure: {out / name}")


def run(main: Callable[[], None]) -> None:
    """Call ``main``; what the user can mend is one line and exit code 2, as in the command ``uncanny``."""
    try:
        main()
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
