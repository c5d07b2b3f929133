"""Walks become rows: every probe of a batch is measured, and the batch written as a trajectory."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley.checks import check_count, check_ids, check_labels
from uncannyvalley.derivatives.layer_measures import with_layers
from uncannyvalley.errors import InputError
from uncannyvalley.measures import read, resolve
from uncannyvalley.probe import Prober
from uncannyvalley.splitting import SplitModel, split_for
from uncannyvalley.trajectory import TARGET_FIELD, Trajectory, trajectory_schema
from uncannyvalley.types import Attack, Measure, Probe
from uncannyvalley.walking import MaskingGuard, Recording, walk


@runtime_checkable
class Observer(Protocol):
    """Sees each probe of a batch with its measures; keeps images, say."""

    def see(self, restart: int, row: int, probe: Probe, values: dict[str, np.ndarray]) -> None: ...


def trajectory_columns(recording: Recording, model: SplitModel, attack: Attack) -> pa.Schema:
    """Columns with units, and in the metadata what decided them."""
    about = {
        "attack": attack.name, "settings": dict(attack.settings), "steps": recording.steps,
        "rows": recording.rows(attack), "every": recording.every, "restarts": recording.restarts,
        "seed": recording.seed, "keep": recording.keep, "classes": model.classes,
        "head": model.head_name, "log_geometry_band": model.head.log_geometry_band,
    }  # fmt: skip
    units = {one.name: (one.unit, one.version) for one in recording.measures}
    schema = trajectory_schema(units, about, [TARGET_FIELD] if attack.targeted else [])
    if recording.keep:
        schema = schema.append(pa.field("logits", pa.list_(pa.float32(), model.classes)))
    if recording.keep == "features":
        schema = schema.append(pa.field("features", pa.list_(pa.float32(), model.head.weight.shape[1])))
    return schema


def record_batch(
    model: SplitModel,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    ids: Sequence[int],
    attack: Attack,
    recording: Recording,
    *,
    target: Int[Tensor, "n"] | None = None,
    run: str = "",
    schema: pa.Schema,
    masking: MaskingGuard | None = None,
    observer: Observer | None = None,
    progress: Callable[[int], None] | None = None,
) -> pa.RecordBatch:
    """All walks of one batch as rows, sorted by example, restart and step."""
    seen: list[dict[str, np.ndarray]] = []
    belongs: list[np.ndarray] = []
    for restart in range(recording.restarts):
        prober = Prober(model, x, y, target, attack.objective, aims=attack.targeted)
        row = 0
        for row, probe in walk(prober, attack, recording, ids, restart, masking):
            recorded = _recorded_rows(probe, recording.keeps(row, attack))
            if recorded.any():
                values = _hidden(read(probe, recording.measures), recorded)
                seen.append(_index_columns(probe, restart, row, attack) | values | _kept(probe, recording))
                belongs.append(recorded)
                if observer is not None:
                    observer.see(restart, row, probe, values)
            if progress is not None:
                progress(len(ids))
        if progress is not None and row < recording.last_row(attack):  # all stopped: what is left is done too
            progress(len(ids) * (recording.last_row(attack) - row))
    columns: dict[str, Any] = {
        name: np.stack([one[name] for one in seen], axis=1) for name in seen[0]
    }  # (n, restarts · rows, …): rows of one example stay together
    columns["example"] = np.repeat(np.asarray(ids, dtype=np.int64), len(seen)).reshape(len(ids), -1)
    chosen = np.stack(belongs, axis=1)
    count = int(chosen.sum())
    arrays = [
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([run]))
        if one.name == "run"
        else _arrow(columns[one.name][chosen], one, count)
        for one in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _recorded_rows(probe: Probe, kept: bool) -> np.ndarray:
    """Which rows of a probe belong to the record: all or none, unless rows stop one by one."""
    if probe.recorded is not None:
        return probe.recorded.cpu().numpy()
    return np.full(len(probe.y), kept)


def _hidden(values: dict[str, np.ndarray], recorded: np.ndarray) -> dict[str, np.ndarray]:
    """Measures with NaN where nothing is recorded, so that no observer takes a point after the stop for a step."""
    if recorded.all():
        return values
    return {name: np.where(recorded, one, np.nan) for name, one in values.items()}


def _arrow(values: np.ndarray, one: pa.Field, count: int) -> pa.Array:
    if pa.types.is_fixed_size_list(one.type):
        flat = pa.array(values.reshape(-1), type=one.type.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=one.type)
    return pa.array(values.reshape(count), type=one.type)


def _index_columns(probe: Probe, restart: int, row: int, attack: Attack) -> dict[str, np.ndarray]:
    label, predicted = probe.y.cpu().numpy(), probe.predicted.cpu().numpy()
    columns = {
        "label": label,
        "predicted": predicted,
        "adversarial": predicted != label,
        "restart": np.full(len(label), restart),
        "step": np.full(len(label), row),
    }
    if attack.targeted and probe.target is not None:
        columns["target"] = probe.target.cpu().numpy()
    return columns


def _kept(probe: Probe, recording: Recording) -> dict[str, np.ndarray]:
    kept = {}
    if recording.keep:
        kept["logits"] = probe.logits.float().cpu().numpy()
    if recording.keep == "features":
        kept["features"] = probe.features.float().cpu().numpy()
    return kept


def choose_batch_size(model: SplitModel, batch_size: int | None) -> int:
    """The size asked for, else 64 on a CPU (caches) and 256 on an accelerator."""
    if batch_size is None:
        return 64 if model.device.type == "cpu" else 256
    return check_count("batch_size", batch_size, 1)


def check_target(
    target: Int[Tensor, "n"] | int | None, y: Int[Tensor, "n"], attack: Attack, classes: int
) -> Int[Tensor, "n"] | None:
    """Target classes for a targeted attack; None means the least likely class of the clean image."""
    if target is None:
        return None
    if not attack.targeted:
        raise InputError(f"target was given, but {attack.name} is not targeted; make it with targeted=True")
    if isinstance(target, int):
        target = torch.full_like(y, target)
    target = check_labels(target, len(y), classes, name="target").to(y.device)
    if (target == y).any():
        raise InputError(
            f"target equals the true class of {int((target == y).sum())} images; leave those images out"
        )
    return target


def record(
    model: nn.Module | SplitModel,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    attack: Attack,
    *,
    steps: int,
    measures: Sequence[str | Measure] | None = None,
    seed: int = 0,
    ids: Sequence[int] | None = None,
    batch_size: int | None = None,
    restarts: int = 1,
    target: Int[Tensor, "n"] | int | None = None,
    every: int = 1,
    keep: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trajectory:
    """Record every step of ``attack`` on each image, with all measures from the attack's own forwards.

    model      nn.Module in evaluation mode (split here), or what ``split`` returned
    x, y       float images (n, …) in [0, 1] and int64 classes (n,), on any device
    measures   names or Measure objects; None means all closed-form ones (``measures.available()``).
               ``NAME@LAYER`` measures an inner layer, as log_relative_sharpness@layer1.0.conv1
    ids        distinct numbers that key each image's random numbers; its position by default
    restarts   walks from each image (useful with a random start); ``column(name, restart=r)`` reads one
    target     class(es) for a targeted attack; by default the least likely class of each clean image
    every      record row 0, each ``every``-th and the last
    keep       "logits" or "features" to store those too
    progress   called with the number of example-steps done

    The rows of an example depend on that example, the seed and its id, not on batch size or order
    (beyond float error). Returns a Trajectory on the CPU. Raises InputError for input that cannot be used.
    """
    split_model, x, y = split_for(model, x, y)
    ids = check_ids(ids, len(x))
    target = check_target(target, y, attack, split_model.classes)
    chosen = resolve(with_layers(split_model, measures))
    recording = Recording(steps, chosen, seed, restarts, every, keep)
    schema = trajectory_columns(recording, split_model, attack)
    masking = MaskingGuard(len(x))
    size = choose_batch_size(split_model, batch_size)
    batches = [
        record_batch(
            split_model, x[rows], y[rows], ids[rows], attack, recording,
            target=None if target is None else target[rows],
            run=attack.name, schema=schema, masking=masking, progress=progress,
        )
        for rows in (slice(first, first + size) for first in range(0, len(x), size))
    ]  # fmt: skip
    return Trajectory(pa.Table.from_batches(batches, schema=schema).unify_dictionaries())
