"""Small studies on disk, made by the command line in this process, and what is compared between two of them."""

import sys
from pathlib import Path

import jaxtyping
from typer.testing import CliRunner, Result

from uncannyvalley.cli.app import app

STUDIES = Path(__file__).resolve().parents[1] / "studies"
sys.path.append(str(STUDIES))

import flipped_bits  # noqa: E402
import killing  # noqa: E402
from killing import differences, files  # noqa: E402

__all__ = [
    "NETWORK",
    "ONE",
    "PLAN",
    "RECORD",
    "differences",
    "files",
    "flipped_bits",
    "killing",
    "tiny_network",
    "uncanny",
    "verify_lines",
]

NETWORK = """
import torch
from torch import nn
from uncannyvalley import data


def build():
    digits = data.load("digits")
    x, y = digits[:].flatten(1), digits.labels
    means = torch.stack([x[y == label].mean(dim=0) for label in range(10)])
    features, head = nn.Linear(64, 64, bias=False), nn.Linear(64, 10)
    with torch.no_grad():
        features.weight.copy_(torch.eye(64))
        head.weight.copy_(4 * means)
        head.bias.copy_(-2 * means.square().sum(dim=1))
    return nn.Sequential(nn.Flatten(), features, nn.ReLU(), head).eval()
"""
PLAN = """
shard_size = 4
keep_images = 5
keep = "logits"
[[models]]
model = "tiny.py:build"
[[data]]
data = "digits"
limit = 10
[[attacks]]
attack = "pgd"
eps = [0.2, 0.3]
steps = 3
"""
ONE = PLAN.replace("[0.2, 0.3]", "0.3")
"""A plan of one run, which lies as ``uncanny record`` would write it."""

RECORD = (
    "record", "--eps", "0.3", "--steps", "3", "--limit", "10", "--shard-size", "4", "--keep-images", "5", "--keep", "logits",
)  # fmt: skip


def tiny_network(folder: Path) -> str:
    """A user's Python file with a network that takes digits for the nearest mean; returns what ``--model`` takes."""
    (folder / "tiny.py").write_text(NETWORK)
    return f"{folder / 'tiny.py'}:build"


def uncanny(*arguments: str | Path, code: int | None = 0) -> Result:
    """The command line without a process of its own, which takes seconds to start; any exit code for ``None``."""
    jaxtyping.config.update("jaxtyping_disable", True)  # the shape hook cannot read typer's annotations
    try:
        ended = CliRunner().invoke(app, [str(one) for one in arguments])
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert code is None or ended.exit_code == code, ended.output
    return ended


def verify_lines(folder: Path) -> list[str]:
    """The faults that ``uncanny verify`` prints, one a line; it must end with 1 exactly if there are some."""
    ended = uncanny("verify", folder, code=None)
    assert ended.exit_code in (0, 1), ended.output
    return ended.output.splitlines() if ended.exit_code else []
