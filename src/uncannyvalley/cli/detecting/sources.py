"""Images to be judged: data by name, a file or folder of images, or the kept images of a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from uncannyvalley.run.folder import RunFolder

_ENDINGS = {".parquet": "parquet", ".npz": "npz"}


@dataclass(frozen=True)
class Source:
    """Images, where each comes from, and the groups that they are counted in.

    rows    columns that name each image: row; of a run's kept images example, step and roles too
    groups  name → rows that belong to it, beside all of them
    labels  classes, where they are known; class_names what they are called
    """

    x: "Tensor"
    rows: dict[str, list[object]]
    groups: dict[str, list[int]] = field(default_factory=dict)
    labels: "Tensor | None" = None
    class_names: tuple[str, ...] = ()


def read_images(text: str, *, limit: int | None = None, skip: int = 0) -> Source:
    """What ``text`` names: one of the forms of --data, a Parquet or npz file, a folder of images, or a run folder.

    A folder may hold image files, or one folder of them for each class. Raises InputError for anything else.
    """
    from uncannyvalley import data
    from uncannyvalley.checks import check_count

    check_count("--skip", skip, 0)
    if limit is not None:
        check_count("limit", limit, 1)
    path = Path(text).expanduser()
    if path.is_dir():
        from uncannyvalley.run.plan import PLAN_FILE

        if (path / PLAN_FILE).is_file():
            return _part(_kept(text), limit, skip)
        if not any(child.is_dir() for child in path.iterdir()):
            return _part(_flat(path), limit, skip)
        text = f"folder:{text}"
    elif path.is_file() and path.suffix in _ENDINGS:
        text = f"{_ENDINGS[path.suffix]}:{text}"
    images = data.load(text)
    stop = None if limit is None else skip + limit
    x, labels = images[skip:stop], images.labels[skip:stop]
    _check_left(len(x), len(images), skip)
    rows: dict[str, list[object]] = {"row": list(range(skip, skip + len(x)))}
    if text.startswith("folder:"):
        rows["file"] = _file_names(Path(text.removeprefix("folder:")).expanduser(), len(images))[skip:stop]
    return Source(x, rows, labels=labels, class_names=images.class_names)


def kept_images(run: "RunFolder") -> Source:
    """The kept iterates of a run that have a role, grouped by it."""
    import numpy as np
    import torch

    rows: dict[str, list[object]] = {"row": [], "example": [], "step": [], "roles": []}
    groups: dict[str, list[int]] = {}
    pixels: list[np.ndarray] = []
    for example, iterates in sorted(run.images().items()):
        for step, (roles, image) in sorted(iterates.items()):
            if not roles:
                continue
            for role in roles:
                groups.setdefault(role, []).append(len(pixels))
            named = {"row": len(pixels), "example": example, "step": step, "roles": " ".join(roles)}
            for name, value in named.items():
                rows[name].append(value)
            pixels.append(image)
    if not pixels:
        raise InputError(f"{run.path} kept no images; record with --keep-images")
    return Source(torch.from_numpy(np.stack(pixels)), rows, groups)


def _kept(text: str) -> Source:
    from uncannyvalley.run.folder import open_run

    return kept_images(open_run(text))


def _flat(folder: Path) -> Source:
    """The image files of one folder, in the order of their names."""
    import torch

    from uncannyvalley.data.decoding import decode_all
    from uncannyvalley.data.files import IMAGE_ENDINGS

    files = sorted(one for one in folder.iterdir() if one.suffix.lower() in IMAGE_ENDINGS)
    if not files:
        raise InputError(
            f"{folder} holds no images, no folders of images and no run; expected {', '.join(IMAGE_ENDINGS[:3])} files"
        )
    pixels = decode_all((str(one), one.read_bytes()) for one in files)
    names: list[object] = [one.name for one in files]
    return Source(torch.from_numpy(pixels).float() / 255, {"row": list(range(len(files))), "file": names})


def _file_names(folder: Path, images: int) -> list[object]:
    """CLASS/FILE of each image, in the order in which folders of classes are read."""
    from uncannyvalley.data.files import IMAGE_ENDINGS

    names: list[object] = [
        f"{child.name}/{file.name}"
        for child in sorted(one for one in folder.iterdir() if one.is_dir())
        for file in sorted(child.iterdir())
        if file.suffix.lower() in IMAGE_ENDINGS
    ]
    if len(names) != images:
        raise InputError(f"{folder} changes while it is read: {images} images, then {len(names)}")
    return names


def _part(source: Source, limit: int | None, skip: int) -> Source:
    stop = len(source.x) if limit is None else min(len(source.x), skip + limit)
    _check_left(stop - skip, len(source.x), skip)
    rows = {name: values[skip:stop] for name, values in source.rows.items()}
    groups = {
        name: [one - skip for one in found if skip <= one < stop] for name, found in source.groups.items()
    }
    return Source(source.x[skip:stop], rows, groups)


def _check_left(left: int, total: int, skip: int) -> None:
    if left < 1:
        raise InputError(f"--skip {skip} leaves none of the {total} images; leave out fewer")


def labelled(
    name: str, classes: int, *, limit: int | None = None, skip: int = 0
) -> "tuple[Tensor, Tensor, tuple[str, ...]]":
    """Images (n, …) with classes (n,) and their names, that a network of so many classes can have.

    Raises InputError where the images have none, such as a folder of files, or others.
    """
    from uncannyvalley.checks import check_labels

    source = read_images(name, limit=limit, skip=skip)
    if source.labels is None:
        raise InputError(f"{name} holds images without classes; give labelled data (see: uncanny list data)")
    return source.x, check_labels(source.labels, len(source.x), classes), source.class_names
