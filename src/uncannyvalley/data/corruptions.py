"""Corrupted test images in the layout of CIFAR-10-C."""

from pathlib import Path

import numpy as np

from uncannyvalley.data.images import Images, as_labels
from uncannyvalley.data.paths import existing, leading_folder
from uncannyvalley.errors import InputError, first_line, unknown_name

SEVERITIES = 5


def from_corruptions(text: str) -> Images:
    """The images of ``FOLDER:NAME[:SEVERITY]``: one corruption, of one severity (1 to 5) or of all five.

    FOLDER/NAME.npy holds bytes (5 n, h, w, c), severity after severity, and FOLDER/labels.npy n or 5 n classes
    (Hendrycks & Dietterich 2019, arXiv 1903.12261). The images stay in their file until they are looked at.

    Raises InputError for missing or unknown corruptions and severities, and for files of another layout.
    """
    found = leading_folder(text, 2)
    if found is None:
        existing(text.partition(":")[0], "corruptions")
        raise InputError(f"data 'corruptions:{text}' names no folder; write corruptions:FOLDER:NAME")
    folder, wanted = found
    known = sorted(file.stem for file in folder.glob("*.npy") if file.stem != "labels")
    if not known:
        raise InputError(f"{folder} holds no corruptions; expected files like fog.npy beside labels.npy")
    if not wanted or not wanted[0]:
        raise InputError(f"choose a corruption with corruptions:FOLDER:NAME: {', '.join(known)}")
    if wanted[0] not in known:
        raise unknown_name("corruption", wanted[0], known)
    severity = _severity(wanted[1]) if len(wanted) > 1 else None
    pixels, labels = _pixels(folder / f"{wanted[0]}.npy"), _labels(folder / "labels.npy")
    count = len(pixels) // SEVERITIES
    if len(pixels) != SEVERITIES * count or len(labels) not in (count, len(pixels)):
        raise InputError(
            f"{wanted[0]}.npy holds {len(pixels)} images and labels.npy {len(labels)} classes; the images must be "
            "five severities of one set, and the classes those of one severity or of all"
        )
    if len(labels) == count:
        labels = np.tile(labels, SEVERITIES)
    rows = slice(None) if severity is None else slice((severity - 1) * count, severity * count)
    return Images(pixels[rows], as_labels(labels[rows]))


def _severity(text: str) -> int:
    if text not in map(str, range(1, SEVERITIES + 1)):
        raise InputError(f"severity must be a whole number from 1 to {SEVERITIES}, got {text!r}")
    return int(text)


def _pixels(file: Path) -> np.ndarray:
    """(5 n, c, h, w) bytes, a view of the file."""
    pixels = _mapped(file)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        raise InputError(
            f"{file.name} must hold bytes (uint8) of shape (images, height, width, 1 or 3); "
            f"it holds {pixels.dtype} of shape {pixels.shape}"
        )
    return pixels.transpose(0, 3, 1, 2)


def _labels(file: Path) -> np.ndarray:
    if not file.is_file():
        raise InputError(f"{file.parent} has no labels.npy with the classes of the images; put it there")
    labels = _mapped(file)
    if labels.ndim != 1:
        raise InputError(f"labels.npy must hold one class for each image; it has shape {labels.shape}")
    return labels


def _mapped(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # headers, truncation and pickles fail as many types
        raise InputError(
            f"{file.name} cannot be read as npy ({first_line(error)}); it may be truncated: fetch it again"
        ) from error
