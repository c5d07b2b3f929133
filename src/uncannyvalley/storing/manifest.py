"""What a run has finished: shard → rows, SHA-256 and seconds, in files that are stamped and merged.

A manifest is a second witness. It is written now and then, not after each shard, since every shard proves itself by
its stamp: one that is not listed yet is taken in by that, and a lost manifest is made again from the shards.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from uncannyvalley.errors import InputError
from uncannyvalley.storing.files import WHOLE, write_bytes
from uncannyvalley.storing.places import Place
from uncannyvalley.storing.stamp import BLANK, is_intact, stamp

BLOCK = 4096
"""Shards of one manifest file: what a driver holds in memory, however many shards a run has."""


@dataclass
class Manifest:
    """The finished and the failed shards of one block of a run, and what decided no number but explains them.

    key         of the run that it speaks of
    shards      name → rows, sha256, seconds, and the facts of the shard
    failed      name → error, traceback, attempts
    files       derived file → sha256           controls  walks that were asked for beside this one
    provenance  engine, device, threads, batch size, … of each process that wrote here
    """

    key: str
    shards: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    controls: list[str] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)

    def merge(self, other: "Manifest") -> None:
        """Take in what another process, or another block, has listed."""
        self.shards |= other.shards
        self.failed = {
            name: error for name, error in (self.failed | other.failed).items() if name not in self.shards
        }
        self.files |= other.files
        self.controls += [one for one in other.controls if one not in self.controls]
        self.provenance += [one for one in other.provenance if one not in self.provenance]

    def write(self, place: Place, writer: str = WHOLE) -> None:
        """As a whole, stamped file."""
        parts = [f"{json.dumps(name)}: {_lines(value)}" for name, value in vars(self).items()]
        text = "{\n" + ",\n".join([*parts, f'"stamp": "{BLANK}"']) + "\n}\n"
        write_bytes(place, stamp(text.encode()), writer)

    @classmethod
    def read(cls, place: Place, key: str | None = None) -> "Manifest":
        """InputError where the file cannot be read, is not what was written, or is not of the run with ``key``."""
        try:
            content = place.read_bytes()
            listed = json.loads(content)
            listed.pop("stamp", None)
            manifest = cls(**listed)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{place} cannot be read ({error}); {_MEND}") from error
        if not is_intact(content):
            raise InputError(f"{place} is damaged: its content and the SHA-256 in it disagree; {_MEND}")
        if key not in (None, manifest.key):
            raise InputError(f"{place} is the manifest of another run; {_MEND}")
        return manifest


def _lines(value: dict[str, Any] | list[Any] | str) -> str:
    """JSON with one entry a line: quick to write, and quick to read for people."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return "[" + ",".join(f"\n {json.dumps(one)}" for one in value) + "]"
    return "{" + ",".join(f'\n "{name}": {json.dumps(one)}' for name, one in value.items()) + "}"


_MEND = "the command that recorded this run rebuilds it from the shards"


def manifest_name(block: int, writer: str = WHOLE) -> str:
    """File name of a block's manifest, as one writer keeps it."""
    number = f"-{block:05d}" if block else ""
    part = "" if writer == WHOLE else f".part-{writer}"
    return f"manifest{number}{part}.json"


def manifests_of(folder: Place, block: int) -> list[Place]:
    """The manifests of a block that are there: of the whole run, then of its parts."""
    whole = folder / manifest_name(block)
    parts = manifest_name(block, "*").removesuffix("*.json")
    found = [one for one in folder.iterdir() if one.name.startswith(parts) and one.name.endswith(".json")]
    return [*([whole] if whole.exists() else []), *sorted(found, key=lambda one: one.name)]
