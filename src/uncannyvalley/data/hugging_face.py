"""Image data sets of the Hugging Face hub, or folders in its layouts, through the package ``datasets``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from uncannyvalley.data.decoding import decode_all
from uncannyvalley.data.images import Images, as_labels
from uncannyvalley.data.packages import need
from uncannyvalley.data.paths import leading_folder
from uncannyvalley.errors import InputError, first_line, unknown_name

_PLAIN_LABELS = ("label", "labels")
"""Columns of plain integers that are labels by their name."""


def from_hub(text: str) -> Images:
    """The images of ``NAME[:SPLIT[:LABELS]]``, where NAME is on the hub or a folder here, which wins.

    A folder is one that ``save_to_disk`` wrote, or one in the hub's layout (``data/test-*.parquet``). SPLIT is
    test, or the only one. The image column is found by its type; LABELS names one of several label columns.

    Raises InputError for data that are missing or cannot be reached, for unknown splits and columns, and where
    it is not clear which column is meant.
    """
    datasets = need("datasets", f"data 'hf:{text}'", 'pip install "uncannyvalley[hf]"')
    name, wanted = _parts(text)
    try:
        data = _split_of(datasets, name, wanted[0] if wanted else "")
    except InputError:
        raise
    except Exception as error:  # the library, its file systems and its cache raise many types
        reason = first_line(error)
        raise InputError(
            f"data set {str(name)!r} cannot be loaded ({reason}). Check the name, and the network for a first "
            "download; a folder must hold what save_to_disk wrote, or Parquet files like data/test-00000.parquet"
        ) from error
    image = _image_column(datasets, data.features)
    label = _label_column(datasets, data.features, wanted[1] if len(wanted) > 1 else "")
    classes = data[label]
    if missing := sum(one is None for one in classes):
        raise InputError(
            f"{missing} of {len(data)} rows have no {label!r}; take another split or label column"
        )
    pixels = decode_all(_encoded(data.cast_column(image, datasets.Image(decode=False)), image))
    names = getattr(data.features[label], "names", None) or ()
    return Images(pixels, as_labels(np.array(classes)), tuple(map(str, names)))


def _parts(text: str) -> tuple[Path | str, list[str]]:
    """Folder or hub name, and what stands behind it."""
    if local := leading_folder(text, 2):
        return local
    name, *wanted = text.split(":")
    if not name or len(wanted) > 2:
        raise InputError(
            f"data 'hf:{text}' cannot be read; write hf:NAME, hf:NAME:SPLIT or hf:NAME:SPLIT:LABELS"
        )
    return name, wanted


def _split_of(datasets: Any, name: Path | str, wanted: str) -> Any:
    """One split of a data set."""
    if isinstance(name, Path) and any(
        (name / file).is_file() for file in ("dataset_dict.json", "state.json")
    ):
        saved = datasets.load_from_disk(str(name))
        if isinstance(saved, datasets.DatasetDict):
            return saved[_choose_split(list(saved), wanted)]
        known = [str(saved.split)] if saved.split else []
        return saved if not wanted or wanted in known else saved[_choose_split(known, wanted)]
    split = _choose_split(datasets.get_dataset_split_names(str(name)), wanted)
    return datasets.load_dataset(str(name), split=split)


def _choose_split(known: list[str], wanted: str) -> str:
    chosen = wanted or ("test" if "test" in known else known[0] if len(known) == 1 else "")
    if not chosen:
        raise InputError(
            f"the data set has no split 'test'; choose one with hf:NAME:SPLIT: {', '.join(known)}"
        )
    if chosen not in known:
        raise unknown_name("split", chosen, known or ["(this folder holds one data set, without splits)"])
    return chosen


def _image_column(datasets: Any, features: Any) -> str:
    found = [name for name, one in features.items() if isinstance(one, datasets.Image)]
    if len(found) != 1:
        shown = ", ".join(f"{name}: {type(one).__name__}" for name, one in features.items())
        raise InputError(
            f"the data set must have one column of images, it has {len(found)}; its columns: {shown}"
        )
    return found[0]


def _label_column(datasets: Any, features: Any, wanted: str) -> str:
    """The column of classes: the one named, 'label', or the only one."""
    classes = [name for name, one in features.items() if isinstance(one, datasets.ClassLabel)]
    numbers = [name for name, one in features.items() if "int" in str(getattr(one, "dtype", ""))]
    if wanted:
        if wanted not in numbers:
            raise unknown_name("label column", wanted, numbers or ["(no column holds class numbers)"])
        return wanted
    if "label" in classes or len(classes) == 1:
        return "label" if "label" in classes else classes[0]
    if len(classes) > 1:
        raise InputError(
            f"the data set has several label columns ({', '.join(classes)}); choose one with hf:NAME:SPLIT:LABELS"
        )
    if plain := [name for name in _PLAIN_LABELS if name in numbers]:
        return plain[0]
    raise InputError(
        "the data set has no label column; choose a column of class numbers with hf:NAME:SPLIT:LABELS: "
        f"{', '.join(numbers) or 'none holds any'}"
    )


def _encoded(data: Any, image: str) -> Iterator[tuple[str, bytes | None]]:
    """Where each image stands, and its bytes as they were stored."""
    for row, one in enumerate(data.select_columns([image])):
        held = one[image] or {}
        content = held.get("bytes")
        if content is None and held.get("path"):
            try:
                content = Path(held["path"]).read_bytes()
            except OSError as error:
                raise InputError(f"the image of row {row} cannot be read: {error}") from error
        yield f"row {row}", content
