"""``plan.toml`` of a training: everything that decided its numbers, under one key."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from uncannyvalley import __version__
from uncannyvalley.errors import InputError, first_line
from uncannyvalley.storing.places import Place
from uncannyvalley.storing.stamp import BLANK, is_intact, stamp

PLAN_FILE = "plan.toml"

KIND = "training"
"""Tells the plan of a training from those of runs and studies."""

GRID_FILE = "trainings.toml"
"""In a folder of several trainings: the plan file that they came of, spelled out."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a training is.

    content  sections of what decides its numbers: network, data, objective, recipe, engine
    about    what names them and decides none: where the network comes from, the kind of device
    """

    content: Mapping[str, Any]
    about: Mapping[str, Any]

    @property
    def key(self) -> str:
        """SHA-256 over the content and the version."""
        text = json.dumps({"version": __version__, **_without_none(self.content)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """``plan.toml``, stamped."""
        head = f'# Everything that decided this training\'s numbers.\nkind = "{KIND}"\nkey = "{self.key}"\nstamp = "{BLANK}"\n'
        entries = {"version": __version__, **_without_none(self.content), "about": _without_none(self.about)}
        return stamp((head + tomli_w.dumps(entries)).encode())

    def check_same(self, place: Place) -> None:
        """Raise InputError unless ``place`` holds this very plan, whole."""
        theirs, key = _read(place)
        if key == self.key:
            return
        mine = _flat({"version": __version__, **_without_none(self.content)})
        other = _flat({name: one for name, one in theirs.items() if name != "about"})
        differ = [
            f"{name} ({_shown(other, name)} there, {_shown(mine, name)} now)"
            for name in dict.fromkeys([*mine, *other])
            if mine.get(name) != other.get(name)
        ]
        raise InputError(
            f"{place.parent} holds another training; they differ in {'; '.join(differ) or 'their key'}. Choose another "
            "folder, or give overwrite (--overwrite) to begin anew"
        )


def trainings_in(folder: Path) -> list[Path] | None:
    """The folders of trainings that ``folder`` is or holds; None where it is something else."""
    if (folder / GRID_FILE).is_file():
        return sorted(
            one.parent for one in folder.glob(f"*=*/**/{PLAN_FILE}") if _is_cell(folder, one.parent)
        )
    try:
        entries = tomllib.loads((folder / PLAN_FILE).read_text())
    except (OSError, ValueError):
        return None
    return [folder] if entries.get("kind") == KIND else None


def _is_cell(root: Path, folder: Path) -> bool:
    """Whether every part of the way is a hive partition: a run recorded inside a training is none of the trainings."""
    return all("=" in part for part in folder.relative_to(root).parts)


def read_plan(place: Place) -> dict[str, Any]:
    """The sections of a training's plan, and its ``key``; InputError where it is missing, damaged or something else."""
    entries, key = _read(place)
    return {**entries, "key": key}


def _read(place: Place) -> tuple[dict[str, Any], str]:
    try:
        content = place.read_bytes()
        entries = tomllib.loads(content.decode())
    except FileNotFoundError as error:
        raise InputError(f"{place.parent} is no folder of a training: it has no {place.name}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{place} cannot be read ({first_line(error)}); give overwrite (--overwrite) to begin anew"
        ) from error
    if entries.get("kind") != KIND:
        raise InputError(f"{place.parent} holds something else than a training; choose another folder")
    if not is_intact(content):
        raise InputError(
            f"{place} was damaged, or edited after the training began: its stamp does not fit its content. Put a copy "
            "in its place, or give overwrite (--overwrite) to begin anew"
        )
    named = ("kind", "key", "stamp")
    return {name: one for name, one in entries.items() if name not in named}, entries["key"]


def _without_none(value: Any) -> Any:
    """TOML knows no None: what is not given is left out."""
    if isinstance(value, Mapping):
        return {name: _without_none(one) for name, one in value.items() if one is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(one) for one in value]
    return value


def _flat(value: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, one in value.items():
        found |= _flat(one, f"{above}{name}.") if isinstance(one, Mapping) else {f"{above}{name}": one}
    return found


def _shown(entries: Mapping[str, Any], name: str) -> str:
    text = str(entries.get(name, "nothing"))
    return text if len(text) <= 24 else f"{text[:12]}…"
