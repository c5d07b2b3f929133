"""The digits that come with scikit-learn: real images that need no download."""

import numpy as np
import torch

from uncannyvalley.data.images import Images
from uncannyvalley.errors import unknown_name


def digits(part: str = "test") -> Images:
    """scikit-learn's handwritten digits, 1 x 8 x 8: the third kept for tests, or the rest to train on."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if part not in ("train", "test"):
        raise unknown_name("part of digits", part, ["train", "test"])
    bunch = load_digits()
    pixels = (bunch.images[:, None] / 16).astype(np.float32)
    train, test = train_test_split(
        np.arange(len(pixels)), test_size=0.3, random_state=0, stratify=bunch.target
    )
    chosen = np.sort(train if part == "train" else test)
    labels = torch.from_numpy(bunch.target[chosen]).long()
    return Images(pixels[chosen], labels, tuple(map(str, bunch.target_names)))
