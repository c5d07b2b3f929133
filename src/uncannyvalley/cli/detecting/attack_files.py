"""Attacked images in files that are there whole or not at all, so that an evaluation that was stopped goes on.

A file's name ends in a digest of all that decided its content (settings, library, weights, images, classes, seed, version):
a changed setting makes new files, and old ones are never taken for them.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "attacked"


@dataclass(frozen=True)
class AttackFiles:
    """A folder of attacked images. ``about``: what decides all of them, such as the network's weights."""

    folder: Path
    about: Mapping[str, Any]

    def images(
        self,
        title: str,
        decided_by: Mapping[str, Any],
        x: "Tensor",
        y: "Tensor",
        make: "Callable[[], tuple[Tensor, list[str]]]",
    ) -> "tuple[Tensor, list[str]]":
        """The images of that attack on ``x``, and remarks: from its file, or made and kept. Damaged files are made anew."""
        path = self.folder / f"{_as_name(title)}-{self._digest(decided_by, x, y)}.npz"
        found = _read(path, tuple(x.shape))
        if found is None:
            found = make()
            _write(path, *found)
        return found

    def _digest(self, decided_by: Mapping[str, Any], x: "Tensor", y: "Tensor") -> str:
        import uncannyvalley

        about = {"version": uncannyvalley.__version__, **self.about, **decided_by, "classes": y.tolist()}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
        digest.update(x.float().contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()[:20]


def _as_name(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-")[:60]


def _read(path: Path, shape: tuple[int, ...]) -> "tuple[Tensor, list[str]] | None":
    import zipfile

    import numpy as np
    import torch

    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            images, remarks = kept["images"], kept["remarks"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if images.shape != shape or images.dtype != np.float32 or not np.isfinite(images).all():
        return None
    return torch.from_numpy(images), [str(one) for one in remarks]


def _write(path: Path, images: "Tensor", remarks: list[str]) -> None:
    import numpy as np

    from uncannyvalley.storing.files import cannot_write, write_bytes

    content = io.BytesIO()
    np.savez(content, images=images.float().contiguous().cpu().numpy(), remarks=np.array(remarks, dtype=str))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_bytes(path, content.getvalue())
