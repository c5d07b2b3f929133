"""Paths in a plan are read from the plan's folder, wherever the command is called and whichever machine does the work."""

import os
from pathlib import Path

from uncannyvalley.zoo import KINDS
from uncannyvalley.zoo.fitted import FILE, NETWORK_FILE

FILE_ARGUMENT = f"arguments.{FILE}"
"""The setting that names the Python file of a fitted network again."""

WHOLE_PATHS = ("parquet", "npz", "folder")
"""Kinds of data that are nothing but a path."""

LEADING_FOLDERS = ("hf", "corruptions")
"""Kinds of data that may begin with a folder, and up to two parts after it."""


def found_path(text: str, folder: Path) -> str:
    """The absolute path of what lies at ``text`` in ``folder``, or else here; ``text`` itself where nothing does."""
    for base in (folder, Path()):
        if text and os.path.exists(base / text):  # unlike Path.exists, this raises nothing for any text
            return os.path.abspath(base / text)
    return text


def found_model(spec: str, folder: Path) -> str:
    """A model's name with the path in it made absolute: that of FILE.py:CALLABLE, of hf:FOLDER, or of a fitted network."""
    kind, _, rest = spec.partition(":")
    if kind == "hf":
        return f"hf:{_found_folder(rest, folder)}"
    file, colon, name = spec.rpartition(":")
    if file.endswith(".py"):
        return f"{found_path(file, folder)}{colon}{name}"
    path = found_path(spec, folder)
    return path if spec not in KINDS and is_fitted(path) else spec


def is_fitted(path: str) -> bool:
    """Whether ``path`` is a fitted network's file, or its folder."""
    return os.path.isfile(path) if path.endswith(".safetensors") else os.path.isfile(f"{path}/{NETWORK_FILE}")


def found_data(spec: str, folder: Path) -> str:
    """The name of data with the path in it made absolute."""
    kind, colon, rest = spec.partition(":")
    if kind in WHOLE_PATHS and colon:
        return f"{kind}:{found_path(rest, folder)}"
    if kind == "torchvision":
        name, colon, root = rest.partition(":")
        return f"{kind}:{name}{colon}{found_path(root, folder)}"
    if kind not in LEADING_FOLDERS:
        return spec
    for parts in range(3):
        path, *after = rest.rsplit(":", parts)
        if (found := _found_folder(path, folder)) != path or os.path.isdir(path):
            return ":".join([kind, found, *after])
    return spec


def _found_folder(text: str, folder: Path) -> str:
    found = found_path(text, folder)
    return found if os.path.isdir(found) else text
