"""A training on two CPU processes, as a script: of fit's own starting, or under torchrun.

python two_processes.py FOLDER
"""

import os
import sys
from pathlib import Path

import torch
from torch import nn

from uncannyvalley import data
from uncannyvalley.train.fitted import Fitted, Progress
from uncannyvalley.train.fitting import fit
from uncannyvalley.train.objectives import pgd_at, sam
from uncannyvalley.train.recipe import Recipe

RECIPE = Recipe(
    epochs=3, batch_size=40, learning_rate=0.1, eps=0.1, attack_steps=2, checkpoint_steps=4, checkpoint_every=None
)  # fmt: skip
STEPS = 15


def network() -> nn.Module:
    """Without batch norm and dropout, whose numbers depend on which images stand together."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def train(devices: int, out: Path | None = None, progress: Progress | None = None) -> Fitted:
    images = data.digits("train").first(240)
    objective = sam(pgd_at(eps=0.1, steps=2))
    return fit(
        network(), images, None, objective, RECIPE, out=out, devices=devices, accelerator="cpu", progress=progress
    )  # fmt: skip


if __name__ == "__main__":
    fitted = train(2, Path(sys.argv[1]))
    # one write a line: processes share the pipe
    os.write(sys.stdout.fileno(), f"{os.environ.get('RANK', '-')} {len(fitted.history)}\n".encode())
