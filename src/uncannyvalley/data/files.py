"""Image files of one's own: Parquet, npz, and folders with one folder for each class."""

import json
from pathlib import Path

import numpy as np

from uncannyvalley.data.decoding import decode_all
from uncannyvalley.data.images import Images, as_labels
from uncannyvalley.errors import InputError, first_line

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")


def from_parquet(path: Path) -> Images:
    """Hugging Face image layout: a struct with the encoded bytes, and an integer label."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path.name} cannot be read as Parquet ({first_line(error)}); it may be truncated: fetch it again"
        ) from error
    image_columns = [
        f.name for f in table.schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0
    ]
    label_columns = [f.name for f in table.schema if pa.types.is_integer(f.type)]
    if len(image_columns) != 1 or not label_columns:
        raise InputError(
            f"{path.name} must have one column of images (a struct with 'bytes') and an integer 'label'; "
            f"it has {', '.join(f'{f.name}: {f.type}' for f in table.schema)}"
        )
    label = "label" if "label" in label_columns else label_columns[0]
    if table[label].null_count:
        raise InputError(f"{path.name} has {table[label].null_count} rows without a label")
    encoded = (row.as_py()["bytes"] for row in table[image_columns[0]])
    names = _class_names(table.schema.metadata or {}, label)
    pixels = decode_all((f"row {row}", image) for row, image in enumerate(encoded))
    return Images(pixels, as_labels(table[label].to_numpy()), names)


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    """Names from the ``huggingface`` schema metadata, if they are there."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


def from_npz(path: Path) -> Images:
    """Arrays x (n, c, h, w) or (n, h, w, c), bytes or floats in [0, 1], and y (n,)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            stored = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zip, header and pickle faults come as many types
        raise InputError(
            f"{path.name} cannot be read as npz ({first_line(error)}); write it with np.savez(path, x=…, y=…)"
        ) from error
    if not {"x", "y"} <= stored.keys():
        raise InputError(f"{path.name} must hold arrays x and y; it holds {', '.join(stored) or 'nothing'}")
    x = stored["x"]
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"x in {path.name} must be uint8 or float in [0, 1], got {x.dtype}")
    if x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    elif x.ndim == 3:
        x = x[:, None]
    labels = as_labels(stored["y"])
    if x.ndim < 2 or len(x) != len(labels):
        raise InputError(
            f"{path.name}: x has shape {x.shape} and y {tuple(labels.shape)}; one label for each image is needed"
        )
    return Images(x, labels)


def from_folder(path: Path) -> Images:
    """One folder for each class, in the order of their names."""
    if not path.is_dir():
        raise InputError(f"{path} is no folder; folder:PATH takes a folder with one folder for each class")
    classes = sorted(child for child in path.iterdir() if child.is_dir())
    found = [
        (number, file)
        for number, child in enumerate(classes)
        for file in sorted(child.iterdir())
        if file.suffix.lower() in IMAGE_ENDINGS
    ]
    if not found:
        raise InputError(
            f"{path} holds no images; expected one folder for each class with {', '.join(IMAGE_ENDINGS[:3])} files"
        )
    pixels = decode_all((str(file), file.read_bytes()) for _, file in found)
    labels = as_labels(np.array([number for number, _ in found]))
    return Images(pixels, labels, tuple(child.name for child in classes))
