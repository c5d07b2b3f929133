"""One shard of a plan → its file: rows streamed batch by batch, images beside it."""

import hashlib
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Int
from safetensors.torch import save
from torch import Tensor

from uncannyvalley.adversaries import Adversary
from uncannyvalley.data import Images
from uncannyvalley.head import Head
from uncannyvalley.observing import observed_about
from uncannyvalley.query_rows import query_schema
from uncannyvalley.recording import record_batch, trajectory_columns
from uncannyvalley.run.album import WHOLE_WALKS, Album
from uncannyvalley.run.folder import HEAD_FILE, RunFolder
from uncannyvalley.run.plan import shard_name
from uncannyvalley.splitting import SplitModel
from uncannyvalley.storing.files import write_bytes
from uncannyvalley.storing.parquet import write_parquet
from uncannyvalley.storing.places import is_local
from uncannyvalley.storing.stamp import BLANK, stamp
from uncannyvalley.types import Attack
from uncannyvalley.walking import MaskingGuard, Recording
from uncannyvalley.watching import about_adversary, add_counts, watch_batch


@dataclass(frozen=True)
class Work:
    """What a plan names, at hand: the network, the images, the attack, and how to record."""

    model: SplitModel
    images: Images
    attack: Attack | Adversary
    recording: Recording
    target: Int[Tensor, "n"] | None
    batch_size: int

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the attack's path. A library draws for a batch as a whole, so its size does too."""
        settings = dict(self.attack.settings)
        if isinstance(self.attack, Adversary):
            settings |= {"library": self.attack.library, "batch_size": self.batch_size}
        return {name: value for name, value in settings.items() if value is not None}

    @property
    def rows_an_example(self) -> int:
        """Probes of an example, by which progress is counted; an attack of a library counts examples."""
        if isinstance(self.attack, Adversary):
            return 1
        return (self.recording.last_row(self.attack) + 1) * self.recording.restarts

    @property
    def schema(self) -> pa.Schema:
        """Columns of its shards."""
        if isinstance(self.attack, Adversary):
            about = observed_about(self.model, about_adversary(self.attack) | {"seed": self.recording.seed})
            return query_schema(self.recording.measures, about)
        return trajectory_columns(self.recording, self.model, self.attack)


def record_shard(
    run: RunFolder,
    work: Work,
    number: int,
    masking: MaskingGuard,
    *,
    facts: Callable[[], dict[str, Any]] = dict,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Record one shard, its images before it; returns the manifest's entry: rows, sha256, seconds and the facts.

    Rows are streamed: memory holds one batch. What a shard holds does not depend on when or where it is recorded.
    """
    started = time.perf_counter()
    shard = _Shard(run, work, number, masking, progress)
    more: dict[str, Any] = {}

    def write_facts() -> dict[str, Any]:
        more.update(facts(), **shard.write_beside())
        return more | {"key": run.plan.key, "shard": shard_name(number)}

    digest = write_parquet(run.shard(number), work.schema, shard.tables(), write_facts, run.writer)
    seconds = round(time.perf_counter() - started, 3)
    return {"rows": shard.written, "sha256": digest, "seconds": seconds, **more}


def _write_head(run: RunFolder, head: Head) -> str:
    """W and b beside the kept logits, so that head measures can be computed again without the model; its SHA-256."""
    tensors = {"weight": head.weight.cpu().contiguous()}
    if head.bias is not None:
        tensors["bias"] = head.bias.cpu().contiguous()
    content, place = stamp(save(tensors, {"stamp": BLANK})), run.path / HEAD_FILE
    write_bytes(place, content, run.writer)
    return hashlib.sha256(content).hexdigest()


class _Shard:
    """The tables of one shard, batch by batch, and what is kept beside them."""

    def __init__(
        self,
        run: RunFolder,
        work: Work,
        number: int,
        masking: MaskingGuard,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._run, self._work, self._number = run, work, number
        self._masking, self._progress = masking, progress
        kept = run.plan.recording.keep_images
        self._wanted = set(range(kept))
        # the queries of a library's attack are too many to keep them all
        self._whole = set() if isinstance(work.attack, Adversary) else set(range(min(kept, WHOLE_WALKS)))
        self._schema = work.schema
        self._albums: list[pa.Table] = []
        self.counts: list[dict[str, int]] = []
        self.written = 0

    def tables(self) -> Iterator[pa.Table]:
        """The rows, one batch after the other."""
        rows = self._run.plan.shard_rows(self._number)
        for first in range(rows.start, rows.stop, self._work.batch_size):
            part = slice(first, min(first + self._work.batch_size, rows.stop))
            album = Album(range(part.start, part.stop), self._wanted, self._whole)
            attack = self._work.attack
            table = (
                self._watched(part, attack, album)
                if isinstance(attack, Adversary)
                else self._walked(part, attack, album)
            )
            if (pictures := album.table()) is not None:
                self._albums.append(pictures)
            self.written += table.num_rows
            yield table

    def _walked(self, part: slice, attack: Attack, album: Album) -> pa.Table:
        """The rows of one batch of our own walk."""
        work = self._work
        batch = record_batch(
            work.model, work.images[part], work.images.labels[part], range(part.start, part.stop), attack, work.recording,
            target=None if work.target is None else work.target[part],
            run=self._run.plan.key[:12], schema=self._schema, masking=self._masking, observer=album, progress=self._progress,
        )  # fmt: skip
        return pa.Table.from_batches([batch], schema=self._schema)

    def _watched(self, part: slice, attack: Adversary, album: Album) -> pa.Table:
        """The rows of one batch of a library's attack."""
        work, recording, ids = self._work, self._work.recording, range(part.start, part.stop)
        found = watch_batch(
            work.model, work.images[part], work.images.labels[part], ids, attack, recording.measures, recording.seed, album
        )  # fmt: skip
        self.counts.append(found.counts)
        if self._progress is not None:
            self._progress(len(ids))
        place = self._schema.get_field_index("run")
        key = _repeated(self._run.plan.key[:12], found.table.num_rows)
        named = found.table.set_column(place, self._schema.field(place), key)
        return named.replace_schema_metadata(self._schema.metadata)

    def write_beside(self) -> dict[str, Any]:
        """Write what lies beside the shard, before it: kept iterates and the head. Their SHA-256, and queries by fate."""
        found: dict[str, Any] = {"queries": add_counts(self.counts)} if self.counts else {}
        if self._albums:
            table = pa.concat_tables(self._albums)
            if is_local(self._run.path):
                Path(str(self._run.path), "images").mkdir(exist_ok=True)
            place = self._run.path / "images" / shard_name(self._number)
            found["images"] = write_parquet(place, table.schema, [table], writer=self._run.writer)
        if self._work.recording.keep and self._number == 0:
            found["head"] = _write_head(self._run, self._work.model.head)
        return found


def _repeated(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text]))


def provenance(work: Work, engine: str) -> dict[str, Any]:
    """What does not decide the numbers (beyond float error), but explains them."""
    return {
        "batch_size": work.batch_size,
        "device": str(work.model.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "preparation": list(work.model.notes),
        "engine": engine,
        "class_names": list(work.images.class_names),
    }
