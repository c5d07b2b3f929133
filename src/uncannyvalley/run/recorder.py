"""Record a plan into its folder, shard by shard; whatever is finished stays."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int
from safetensors.torch import save_file
from torch import Tensor

from uncannyvalley.adversaries import Adversary
from uncannyvalley.data import Images
from uncannyvalley.head import Head
from uncannyvalley.observing import observed_about
from uncannyvalley.query_rows import query_schema
from uncannyvalley.recording import record_batch, trajectory_columns
from uncannyvalley.run.album import WHOLE_WALKS, Album
from uncannyvalley.run.files import sha256, write_whole
from uncannyvalley.run.folder import HEAD_FILE, RunFolder
from uncannyvalley.splitting import SplitModel
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


def record_run(run: RunFolder, work: Work, progress: Callable[[int], None] | None = None) -> int:
    """Record every shard of ``run`` that is not there yet; returns how many were recorded.

    Rows are streamed: memory holds one batch. Each shard is renamed into place when it is whole, after
    its images, and listed in the manifest with its SHA-256.
    """
    missing = run.missing_shards()
    if missing and work.recording.keep:
        _write_head(run, work.model.head)
    masking = MaskingGuard(
        sum(rows.stop - rows.start for name, rows in run.plan.shards().items() if name in missing)
    )
    for name in missing:
        started = time.perf_counter()
        count, queries = _record_shard(run, work, name, masking, progress)
        manifest = run.manifest()
        manifest["shards"][name] = {
            "rows": count,
            **({"queries": queries} if queries else {}),
            "sha256": sha256(run.path / "shards" / name),
            "seconds": round(time.perf_counter() - started, 3),
        }
        manifest["provenance"] = provenance(work)
        run.write_manifest(manifest)
    return len(missing)


def _write_head(run: RunFolder, head: Head) -> None:
    """W and b beside the kept logits, so that head measures can be computed again without the model."""
    tensors = {"weight": head.weight.contiguous()}
    if head.bias is not None:
        tensors["bias"] = head.bias.contiguous()
    write_whole(run.path / HEAD_FILE, lambda scratch: save_file(tensors, scratch))


def _record_shard(
    run: RunFolder, work: Work, name: str, masking: MaskingGuard, progress: Callable[[int], None] | None
) -> tuple[int, dict[str, int]]:
    """Rows written, and for a library's attack its queries by fate."""
    rows = run.plan.shards()[name]
    kept = run.plan.recording.keep_images
    wanted = set(range(kept))
    # the queries of a library's attack are too many to keep them all
    whole = set() if isinstance(work.attack, Adversary) else set(range(min(kept, WHOLE_WALKS)))
    schema = work.schema
    albums: list[pa.Table] = []
    counts: list[dict[str, int]] = []
    total = 0

    def write(scratch: Path) -> None:
        nonlocal total
        with pq.ParquetWriter(scratch, schema, compression="zstd", write_page_checksum=True) as writer:
            for first in range(rows.start, rows.stop, work.batch_size):
                part = slice(first, min(first + work.batch_size, rows.stop))
                album = Album(range(part.start, part.stop), wanted, whole)
                table = _record_part(run, work, part, schema, masking, album, counts, progress)
                writer.write_table(table)
                total += table.num_rows
                if (pictures := album.table()) is not None:
                    albums.append(pictures)
        if albums:
            _write_images(run.path / "images", name, albums)

    write_whole(run.path / "shards" / name, write)
    return total, add_counts(counts) if counts else {}


def _record_part(
    run: RunFolder,
    work: Work,
    part: slice,
    schema: pa.Schema,
    masking: MaskingGuard,
    album: Album,
    counts: list[dict[str, int]],
    progress: Callable[[int], None] | None,
) -> pa.Table:
    """The rows of one batch, of our own walk or of a watched one."""
    x, y, ids = work.images[part], work.images.labels[part], range(part.start, part.stop)
    key = run.plan.key[:12]
    if isinstance(work.attack, Adversary):
        recording = work.recording
        found = watch_batch(work.model, x, y, ids, work.attack, recording.measures, recording.seed, album)
        counts.append(found.counts)
        if progress is not None:
            progress(len(ids))
        place = schema.get_field_index("run")
        named = found.table.set_column(place, schema.field(place), _repeated(key, found.table.num_rows))
        return named.replace_schema_metadata(schema.metadata)
    batch = record_batch(
        work.model, x, y, ids, work.attack, work.recording,
        target=None if work.target is None else work.target[part],
        run=key, schema=schema, masking=masking, observer=album, progress=progress,
    )  # fmt: skip
    return pa.Table.from_batches([batch], schema=schema)


def _repeated(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text]))


def _write_images(folder: Path, name: str, tables: list[pa.Table]) -> None:
    folder.mkdir(exist_ok=True)
    table = pa.concat_tables(tables)
    write_whole(
        folder / name,
        lambda scratch: pq.write_table(table, scratch, compression="zstd", write_page_checksum=True),
    )


def provenance(work: Work) -> dict[str, Any]:
    """What does not decide the numbers (beyond float error), but explains them."""
    return {
        "batch_size": work.batch_size,
        "device": str(work.model.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "preparation": list(work.model.notes),
        "engine": "serial",
    }
