"""Record a plan into its folder, shard by shard; whatever is finished stays."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int
from safetensors.torch import save_file
from torch import Tensor

from uncannyvalley.data import Images
from uncannyvalley.head import Head
from uncannyvalley.recording import record_batch, trajectory_columns
from uncannyvalley.run.album import WHOLE_WALKS, Album
from uncannyvalley.run.files import sha256, write_whole
from uncannyvalley.run.folder import HEAD_FILE, RunFolder
from uncannyvalley.splitting import SplitModel
from uncannyvalley.types import Attack
from uncannyvalley.walking import MaskingGuard, Recording


@dataclass(frozen=True)
class Work:
    """What a plan names, at hand: the network, the images, the attack, and how to record."""

    model: SplitModel
    images: Images
    attack: Attack
    recording: Recording
    target: Int[Tensor, "n"] | None
    batch_size: int


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
        count = _record_shard(run, work, name, masking, progress)
        manifest = run.manifest()
        manifest["shards"][name] = {
            "rows": count,
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
) -> int:
    rows = run.plan.shards()[name]
    kept = run.plan.recording.keep_images
    wanted, whole = set(range(kept)), set(range(min(kept, WHOLE_WALKS)))
    schema = trajectory_columns(work.recording, work.model, work.attack)
    albums: list[pa.Table] = []
    total = 0

    def write(scratch: Path) -> None:
        nonlocal total
        with pq.ParquetWriter(scratch, schema, compression="zstd", write_page_checksum=True) as writer:
            for first in range(rows.start, rows.stop, work.batch_size):
                part = slice(first, min(first + work.batch_size, rows.stop))
                ids = list(range(part.start, part.stop))
                album = Album(ids, wanted, whole)
                batch = record_batch(
                    work.model, work.images[part], work.images.labels[part], ids, work.attack, work.recording,
                    target=None if work.target is None else work.target[part],
                    run=run.plan.key[:12], schema=schema, masking=masking, observer=album, progress=progress,
                )  # fmt: skip
                writer.write_batch(batch)
                total += batch.num_rows
                if (pictures := album.table()) is not None:
                    albums.append(pictures)
        if albums:
            _write_images(run.path / "images", name, albums)

    write_whole(run.path / "shards" / name, write)
    return total


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
