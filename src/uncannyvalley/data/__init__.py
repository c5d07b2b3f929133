"""Named data → images in [0, 1] and labels.

Images stay as they were stored (bytes, usually) and become floats batch by batch.
"""

from collections.abc import Callable

import numpy as np

from uncannyvalley.checks import check_images
from uncannyvalley.data.corruptions import from_corruptions
from uncannyvalley.data.files import from_folder, from_npz, from_parquet
from uncannyvalley.data.handwritten import digits
from uncannyvalley.data.hugging_face import from_hub
from uncannyvalley.data.images import Images
from uncannyvalley.data.paths import existing
from uncannyvalley.data.torchvision_sets import from_torchvision
from uncannyvalley.errors import InputError, unknown_name

__all__ = ["KINDS", "Images", "digits", "load"]

KINDS: dict[str, str] = {
    "digits": "scikit-learn's handwritten digits, 1 x 8 x 8, held-out third; digits:train is the rest",
    "parquet:PATH": "a Parquet file in the Hugging Face image layout",
    "npz:PATH": "arrays x, bytes or floats in [0, 1], and y of a NumPy archive",
    "folder:PATH": "image files in one folder for each class",
    "hf:NAME[:SPLIT[:LABELS]]": "a data set of the Hugging Face hub, or of a folder in its layout (extra hf)",
    "torchvision:NAME:ROOT": "the test part of torchvision.datasets.NAME, from files in ROOT (needs torchvision)",
    "corruptions:FOLDER:NAME[:SEVERITY]": "one corruption in the layout of CIFAR-10-C, severity 1 to 5 or all",
}
"""What ``load`` takes: form → what it is."""

_READERS: dict[str, Callable[[str], Images]] = {
    "digits": lambda rest: digits(rest or "test"),
    "parquet": lambda rest: from_parquet(existing(rest, "parquet")),
    "npz": lambda rest: from_npz(existing(rest, "npz")),
    "folder": lambda rest: from_folder(existing(rest, "folder")),
    "hf": from_hub,
    "torchvision": from_torchvision,
    "corruptions": from_corruptions,
}


def load(spec: str) -> Images:
    """The images that ``spec`` names, in one of the forms that KINDS lists.

    Raises InputError for unknown names and for files that are missing, broken, empty or out of range.
    """
    kind, _, rest = spec.partition(":")
    if kind not in _READERS:
        raise unknown_name("kind of data", kind, KINDS)
    images = _READERS[kind](rest)
    if len(images) == 0:
        raise InputError(f"{spec} holds no images")
    if images.pixels.dtype != np.uint8:
        check_images(images.pixels)
    return images
