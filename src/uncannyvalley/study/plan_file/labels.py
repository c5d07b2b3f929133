"""What the entries of a plan are called in folder names: by what their author wrote, whatever else the plan holds."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePath
from typing import Any

SAFE = re.compile(r"[A-Za-z0-9._+-]+")
LONGEST = 80
"""Letters of a label: five of them and their axes' names make a path that every file system takes."""

KINDS = ("parquet", "npz", "folder", "hf", "torchvision", "corruptions", "family", "timm", "robustbench")
"""Beginnings of names of models and data that say how to read them, not which they are."""

ENDINGS = (".py", ".parquet", ".npz", ".npy", ".safetensors", ".pt", ".pth", ".bin")


def label_of(settings: Mapping[str, Any], name: str | None, spread: Collection[str]) -> str:
    """The label of one combination of an entry's settings.

    Without a ``name`` it is made of all settings that were written, with one of those that were written as lists,
    ``spread``: so it never changes when other entries, or other values of the same list, come or go.
    """
    worded = (() if name is None else (name,)) + tuple(
        _word(key, value) for key, value in settings.items() if name is None or key in spread
    )
    label = "-".join(dict.fromkeys(filter(None, worded)))
    if not label or len(label) > LONGEST:
        digest = hashlib.sha256(label.encode() or repr(settings).encode()).hexdigest()[:8]
        return f"{label[: LONGEST - 9]}-{digest}" if label else digest
    return label


def safe(text: str) -> str:
    """``text`` in letters, digits, and . _ + -; anything else becomes _."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "_".join(SAFE.findall(plain)).strip("_")


def number(value: float) -> str:
    """Short numbers as they are, 255ths as such ("8_255"), and otherwise every digit: different for different numbers."""
    plain = f"{value:g}"
    if float(plain) == value and len(plain) <= 6:
        return plain
    above = f"{value * 255:.4g}"
    return f"{above}_255" if float(above) / 255 == value else repr(value)


def _spec(spec: str) -> str:
    """The name inside a name: "hf:ORG/NAME:test" → "NAME-test"."""
    kind, _, rest = spec.partition(":")
    parts = [PurePath(part).name for part in (rest if kind in KINDS and rest else spec).split(":")]
    return "-".join(dict.fromkeys(filter(None, (safe(_without_ending(part)) for part in parts))))


def _without_ending(file: str) -> str:
    path = PurePath(file)
    return path.stem if path.suffix.lower() in ENDINGS else file


def _measures(names: list[str]) -> str:
    joined = "+".join(map(safe, names))
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return joined if len(joined) <= 60 else f"{len(names)}_measures-{digest}"


_WORDS: dict[str, Callable[[Any], str]] = {
    "model": _spec,
    "weights": _spec,
    "head": lambda head: f"head_{safe(head)}",
    "data": _spec,
    "limit": str,
    "attack": str,
    "norm": str,
    "eps": number,
    "steps": lambda steps: f"{steps}steps",
    "step_size": lambda length: f"step_{number(length)}",
    "random_start": lambda random: "random" if random else "clean",
    "target": lambda target: f"to_{safe(target)}",
    "restarts": lambda restarts: f"{restarts}restarts",
    "every": lambda every: f"every_{every}",
    "keep": lambda kept: f"keep_{kept}",
    "measures": _measures,
    "validation": lambda spec: f"validation_{_spec(spec)}",
    "test": lambda spec: "",  # decides nothing of what is trained
    "objective": safe,
    "optimizer": str,
    "schedule": str,
}


def _word(key: str, value: Any) -> str:
    if key in _WORDS:
        return _WORDS[key](value)
    return f"{safe(key.removeprefix('arguments.'))}_{_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else safe(str(value))


def folder_of(labels: Mapping[str, str]) -> str:
    """Axis → label as hive partitions: "model=demo/data=digits/attack=pgd/measures=all/seed=0"."""
    return "/".join(f"{axis}={label}" for axis, label in labels.items())
