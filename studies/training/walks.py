"""PGD walks, recorded once and kept in stamped Parquet files whose names end in a digest of all that decided them."""

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import attacks, zoo
from uncannyvalley.analysis.phase_table import NEEDED
from uncannyvalley.storing.parquet import intact_bytes, read_table, write_parquet

MEASURES = (*NEEDED, "margin", "logit_gap", "confidence", "log_loss", "distance_linf")
SEED = 0
BATCH = 250


def pgd_walk(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    steps: int,
    folder: Path,
    *,
    step_size: float | None = None,
    random_start: bool = False,
) -> uv.Trajectory:
    """PGD in the Linf ball of radius ``eps``, logits kept; steps of 2.5 eps / ``steps`` unless told otherwise."""
    size = 2.5 * eps / steps if step_size is None else step_size
    attack = attacks.pgd("linf", eps=eps, step_size=size, random_start=random_start)
    about = {
        "settings": dict(attack.settings), "steps": steps, "measures": MEASURES, "seed": SEED, "batch": BATCH,
        "weights": zoo.fingerprint(net), "images": digest(x), "labels": y.tolist(),
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"pgd-{eps:.4f}-{steps}{'-random' if random_start else ''}-{key}.parquet"
    if not path.exists():
        started = time.perf_counter()
        made = uv.record(
            net, x, y, attack, steps=steps, measures=MEASURES, seed=SEED, batch_size=BATCH, keep="logits"
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_parquet(path, made.table.schema, [made.table])
        print(f"walked {path} in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return uv.Trajectory(read_table(intact_bytes(path), path))


def digest(x: Tensor) -> str:
    """SHA-256 of images as float32."""
    return hashlib.sha256(np.ascontiguousarray(x.float().numpy()).tobytes()).hexdigest()


def logits_of(trajectory: uv.Trajectory) -> np.ndarray:
    """The logits that were kept, float64 (examples, rows, classes); every row is there in these walks."""
    column = trajectory.table["logits"].combine_chunks()
    values = column.flatten().to_numpy().astype(np.float64)
    return values.reshape(len(trajectory), trajectory.rows, -1)
