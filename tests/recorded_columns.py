"""Columns recorded from a real network, so that the promise is tested where no networks and images are at hand.

Made by ``python tests/recorded_columns.py``: what ``cifar10_resnet20`` answers to the 717 lossless CIFAR-10 test images
and to three copies of each.
"""

import sys
from pathlib import Path

import numpy as np
from torch import Tensor, nn

NAMES = (
    "log_odds", "log_norm", "log_relative_sharpness", "energy",
    "log_odds@mirror,mirror+strong_blur,left", "drift@mirror,mirror+strong_blur,left", "grain", "grain_across", "grain_down",
)  # fmt: skip
"""What budgets 1 and 4 read."""

FILE = Path(__file__).parent / "recorded_columns.npz"


def recorded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns (n, 9) float64, predicted classes, and whether they are right."""
    with np.load(FILE, allow_pickle=False) as kept:
        assert tuple(kept["names"]) == NAMES
        return kept["columns"].astype(np.float64), kept["classes"].astype(np.int64), kept["right"]


def computed(net: nn.Module, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The same from the network."""
    from uncannyvalley.detect.columns import make_columns
    from uncannyvalley.detect.looks import Looker
    from uncannyvalley.splitting import split

    model = split(net, x[:8])
    columns = make_columns(NAMES, model)
    looks = [Looker(model, columns.copies)(part) for part in x.split(128)]
    rows = np.concatenate([columns.read(one).numpy() for one in looks])
    return rows, np.concatenate([one.predicted.numpy() for one in looks])


if __name__ == "__main__":
    shared = Path(sys.argv[1])
    sys.path.insert(0, str(shared / "models"))
    from load_reference import load

    from uncannyvalley import data

    images = data.load(f"parquet:{shared}/data/cifar10/test.parquet")
    rows, classes = computed(load("cifar10_resnet20"), images[:])
    right = classes == images.labels.numpy()
    np.savez_compressed(
        FILE,
        names=np.array(NAMES),
        columns=rows.astype(np.float32),
        classes=classes.astype(np.int8),
        right=right,
    )
    print(f"{FILE}: {rows.shape}, {right.mean():.1%} right")
