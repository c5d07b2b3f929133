"""Image data sets that torchvision knows, from files that are here already."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np

from uncannyvalley.data.decoding import as_array, stack
from uncannyvalley.data.images import Images, as_labels
from uncannyvalley.data.packages import BESIDE_TORCHVISION, need
from uncannyvalley.errors import InputError, first_line, unknown_name


def from_torchvision(text: str) -> Images:
    """The test images of ``NAME:ROOT``: ``torchvision.datasets.NAME`` on the folder ROOT; nothing is downloaded.

    Raises InputError for a missing or broken torchvision, unknown names, missing files, and data sets whose
    examples are not one image and one class.
    """
    name, _, root = text.partition(":")
    if not name or not root:
        raise InputError(
            f"data 'torchvision:{text}' cannot be read; write torchvision:NAME:ROOT, with the folder ROOT"
        )
    datasets = need(
        "torchvision.datasets",
        f"data 'torchvision:{text}'",
        f"pip install torchvision ({BESIDE_TORCHVISION})",
    )
    build = getattr(datasets, name, None)
    if not inspect.isclass(build):
        known = [key for key, value in vars(datasets).items() if inspect.isclass(value)]
        raise unknown_name("torchvision data set", name, known)
    found = _build(build, name, Path(root).expanduser())
    try:
        images, classes = zip(*(found[row] for row in range(len(found))), strict=True)
        labels = as_labels(np.array([int(one) for one in classes]))
        pixels = stack((f"row {row}", as_array(image)) for row, image in enumerate(images))
    except InputError:
        raise
    except Exception as error:  # boxes, captions, videos: whatever its examples are
        raise InputError(
            f"torchvision's {name} does not give one image and one class for each example "
            f"({type(error).__name__}: {error}); only data for classification can be used"
        ) from error
    return Images(pixels, labels, tuple(map(str, getattr(found, "classes", ()))))


def _build(build: Any, name: str, root: Path) -> Any:
    """The test part, by whichever argument the class has for it."""
    takes = inspect.signature(build).parameters
    settings: dict[str, Any] = {"download": False} if "download" in takes else {}
    parts: list[dict[str, Any]] = [{}]
    if "train" in takes:
        parts = [{"train": False}]
    elif "split" in takes:
        parts = [{"split": "test"}, {"split": "val"}]  # some, like ImageNet, have no public test labels
    reason = ""
    for part in parts:
        try:
            return build(str(root), **part, **settings)
        except Exception as error:  # each of its classes checks its files in its own way
            reason = reason or first_line(error)
    raise InputError(
        f"torchvision's {name} cannot be read from {str(root)!r} ({reason}); put its files there, nothing is downloaded"
    )
