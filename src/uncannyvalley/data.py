"""Named data → images in [0, 1] and labels.

Images stay as they were stored (bytes, usually) and become floats batch by batch.
"""

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.checks import check_images, check_labels
from uncannyvalley.errors import InputError, unknown_name

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")


@dataclass(frozen=True)
class Images:
    """Labelled images: ``pixels`` (n, c, h, w), bytes 0…255 or floats in [0, 1], and their classes."""

    pixels: np.ndarray
    labels: Int[Tensor, "n"]
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> Float[Tensor, "n c h w"]:
        """Some rows as float32 (float64 where stored so) in [0, 1]."""
        pixels = torch.from_numpy(np.ascontiguousarray(self.pixels[rows]))
        return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels

    def first(self, limit: int | None) -> "Images":
        """The first ``limit`` images; all of them where None."""
        return Images(self.pixels[:limit], self.labels[:limit], self.class_names)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over shape, type, pixels and labels."""
        digest = hashlib.sha256(f"{self.pixels.dtype}{self.pixels.shape}".encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        digest.update(self.labels.numpy().astype("<i8").data)
        return digest.hexdigest()


def load(spec: str) -> Images:
    """The images that ``spec`` names: digits, parquet:PATH, npz:PATH or folder:PATH.

    Raises InputError for unknown names and for files that are missing, broken, empty or out of range.
    """
    kind, _, rest = spec.partition(":")
    if kind == "digits":
        return digits(rest or "test")
    if kind not in _READERS:
        raise unknown_name("kind of data", kind, ["digits", *(f"{name}:PATH" for name in _READERS)])
    if not rest:
        raise InputError(f"data {spec!r} lacks a path; write {kind}:PATH")
    path = Path(rest).expanduser()
    if not path.exists():
        raise InputError(f"data file {rest!r} does not exist; check the path after {kind}:")
    images = _READERS[kind](path)
    if len(images) == 0:
        raise InputError(f"{spec} holds no images")
    if images.pixels.dtype != np.uint8:
        check_images(images.pixels)
    return images


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


def _from_parquet(path: Path) -> Images:
    """Hugging Face image layout: a struct with the encoded bytes, and an integer label."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path.name} cannot be read as Parquet ({str(error).splitlines()[0]}); it may be truncated: fetch it again"
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
    pixels = _decode_all((f"row {row}", image) for row, image in enumerate(encoded))
    return Images(pixels, _labels(table[label].to_numpy()), names)


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    """Names from the ``huggingface`` schema metadata, if they are there."""
    import json

    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


def _from_npz(path: Path) -> Images:
    """Arrays x (n, c, h, w) or (n, h, w, c), bytes or floats in [0, 1], and y (n,)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            stored = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zip, header and pickle faults come as many types
        raise InputError(
            f"{path.name} cannot be read as npz ({str(error).splitlines()[0]}); write it with np.savez(path, x=…, y=…)"
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
    labels = _labels(stored["y"])
    if x.ndim < 2 or len(x) != len(labels):
        raise InputError(
            f"{path.name}: x has shape {x.shape} and y {tuple(labels.shape)}; one label for each image is needed"
        )
    return Images(x, labels)


def _from_folder(path: Path) -> Images:
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
    pixels = _decode_all((str(file), file.read_bytes()) for _, file in found)
    labels = _labels(np.array([number for number, _ in found]))
    return Images(pixels, labels, tuple(child.name for child in classes))


def _decode_all(encoded: Iterable[tuple[str, bytes]]) -> np.ndarray:
    """(n, c, h, w) bytes from (where, encoded image) pairs; all must have one size."""
    decoded: list[np.ndarray] = []
    for where, image in encoded:
        one = _decode(where, image)
        if decoded and one.shape != decoded[0].shape:
            raise InputError(
                f"images must all have one size: {where} has {one.shape}, the first has {decoded[0].shape} "
                "(channels, height, width); resize them first"
            )
        decoded.append(one)
    if not decoded:
        raise InputError("there are no images")
    return np.stack(decoded)


def _decode(where: str, image: bytes | None) -> np.ndarray:
    from PIL import Image

    try:
        opened = Image.open(io.BytesIO(image or b""))
        grey = opened.mode in ("1", "L", "I", "I;16", "F")
        array = np.asarray(opened.convert("L" if grey else "RGB"))
    except Exception as error:  # Pillow raises many types on hostile bytes
        raise InputError(
            f"the image of {where} cannot be decoded ({type(error).__name__}); remove or replace it"
        ) from error
    return array[None] if grey else array.transpose(2, 0, 1)


def _labels(values: np.ndarray) -> Int[Tensor, "n"]:
    return check_labels(torch.from_numpy(np.array(values)), len(values))


_READERS: dict[str, Callable[[Path], Images]] = {
    "parquet": _from_parquet,
    "npz": _from_npz,
    "folder": _from_folder,
}
