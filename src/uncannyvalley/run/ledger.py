"""What this process adds to a run's manifest: finished shards taken in, new ones listed, now and then written."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from uncannyvalley.errors import InputError
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.plan import shard_name
from uncannyvalley.storing.files import WHOLE
from uncannyvalley.storing.manifest import Manifest, manifest_name, manifests_of
from uncannyvalley.storing.places import Place, presence

PATIENCE = 10.0
"""Seconds between two writes of a manifest, at least; a shard that is not listed yet is known by its stamp."""

SHARE = 0.05
"""The largest share of its time that a process spends on writing manifests."""


class Ledger:
    """One block of a run's manifest while the run is being recorded.

    The process that holds the run as a whole takes in what parts have listed, and lists everything itself; a part
    lists its own shards in a file of its own. Damaged manifests are made again from the shards.
    """

    def __init__(self, run: RunFolder, block: int) -> None:
        self.run, self.block = run, block
        self.notices: list[str] = []
        self._place = run.path / manifest_name(block, run.writer)
        self._written, self._cost, self._changed = time.monotonic(), 0.0, False
        there = manifests_of(run.path, block)
        self._known = self._mine = self._merged(there)
        if run.writer != WHOLE:  # a part writes only what is its own
            self._mine = self._merged([place for place in there if place == self._place])
        elif parts := [place for place in there if place != self._place]:
            self._forget_derived()
            self._mine.write(self._place)
            for place in parts:
                place.unlink()

    def _merged(self, places: Iterable[Place]) -> Manifest:
        merged = Manifest(self.run.plan.key)
        for place in places:
            try:
                merged.merge(Manifest.read(place, self.run.plan.key))
            except InputError as error:
                if f"{error}" not in self.notices:
                    self.notices.append(f"{error}")
                self._changed = True
        return merged

    def unfinished(self, mine: Iterable[int]) -> list[int]:
        """Shards still to record, of those that are ``mine`` in this block; finished ones that were not listed are taken in."""
        found = []
        is_there = presence(self.run.path / "shards")
        for number in mine:
            name = shard_name(number)
            entry = self._entry(number) if is_there(name) else None
            if entry is None:
                found.append(number)
                self._mine.shards.pop(name, None)
            elif name not in self._known.shards:
                self._list(name, entry)
        return found

    def _entry(self, number: int) -> dict[str, Any] | None:
        """The entry of a shard, None where it is not what was written."""
        try:
            return self.run.check_shard(number, self._known)
        except InputError:
            return None

    def add(self, number: int, entry: dict[str, Any], provenance: dict[str, Any]) -> None:
        """A shard was recorded."""
        self._forget_derived()
        self._list(shard_name(number), entry)
        if provenance not in self._mine.provenance:
            self._mine.provenance.append(provenance)
        elapsed = time.monotonic() - self._written
        if elapsed > max(PATIENCE, self._cost / SHARE):
            self.write()

    def fail(self, number: int, failure: dict[str, Any]) -> None:
        """A shard could not be recorded."""
        self._mine.failed[shard_name(number)] = failure
        self._changed = True

    def list_files(self, digests: dict[str, str]) -> None:
        """The files that were derived from the run, by their SHA-256."""
        self._mine.files, self._changed = digests, True

    def name_controls(self, names: Iterable[str]) -> None:
        """The control walks that belong beside this run."""
        new = [name for name in names if name not in self._known.controls]
        if new:
            self._forget_derived()
            self._mine.controls += new
            self._changed = True

    def _forget_derived(self) -> None:
        """Figure, page and phases do not speak of what came after them."""
        for name in self._mine.files:
            place = self.run.path / name
            if place.exists():
                place.unlink()
        self._changed |= bool(self._mine.files)
        self._mine.files = {}

    def _list(self, name: str, entry: dict[str, Any]) -> None:
        self._mine.shards[name] = entry
        self._mine.failed.pop(name, None)
        self._changed = True

    def write(self) -> None:
        """Bring the manifest on disk up to date."""
        if not self._changed:
            return
        started = time.monotonic()
        self._mine.write(self._place, self.run.writer)
        self._written, self._changed = time.monotonic(), False
        self._cost = self._written - started


def list_derived(run: RunFolder, digests: Mapping[str, str]) -> None:
    """List files that were derived from the whole run, by their SHA-256, in its manifest beside those that others derived.

    Raises InputError where the manifest is damaged.
    """
    ledger = Ledger(run, 0)
    ledger.list_files({**run.manifest(0).files, **digests})
    ledger.write()
