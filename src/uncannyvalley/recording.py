"""The only loop of our own attacks: probe, measure, step; each batch becomes rows of a trajectory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley.attacks.streams import Streams
from uncannyvalley.checks import check_count, check_ids, check_images, check_labels
from uncannyvalley.errors import InputError
from uncannyvalley.measures import read, resolve
from uncannyvalley.probe import Prober, all_needs
from uncannyvalley.splitting import SplitModel, split
from uncannyvalley.trajectory import TARGET_FIELD, Trajectory, trajectory_schema
from uncannyvalley.types import OBJECTIVE_GRAD, Attack, Measure, Probe

ALWAYS = ("distance_linf", "distance_l2")
"""Measures that every trajectory holds, before the chosen ones."""

KEEP = ("logits", "features")


@runtime_checkable
class Observer(Protocol):
    """Sees each probe of a batch with its measures; keeps images, say."""

    def see(self, restart: int, row: int, probe: Probe, values: dict[str, np.ndarray]) -> None: ...


@dataclass(frozen=True)
class Recording:
    """How walks are recorded: everything about them except model, data and attack.

    steps     steps of a walk       every     row 0, each ``every``-th and the last are recorded
    measures  what is read          restarts  walks from one image, each with its own random numbers
    seed      of all streams        keep      "logits" or "features" to store them too, or None
    """

    steps: int
    measures: tuple[Measure, ...] = field(default_factory=lambda: resolve(None))
    seed: int = 0
    restarts: int = 1
    every: int = 1
    keep: str | None = None

    def __post_init__(self) -> None:
        check_count("steps", self.steps, 1)
        check_count("restarts", self.restarts, 1)
        check_count("every", self.every, 1)
        check_count("seed", self.seed, 0)
        if self.keep is not None and self.keep not in KEEP:
            raise InputError(f"keep must be 'logits' or 'features', got {self.keep!r}")
        # with the logits, |φ| is all that any head measure needs
        wanted = resolve([*ALWAYS, *self.measures, *(["feature_norm"] if self.keep else [])])
        object.__setattr__(self, "measures", wanted)

    def rows(self, attack: Attack) -> int:
        """Rows of a whole walk."""
        return 1 + (attack.start is not None) + self.steps

    def last_row(self, attack: Attack) -> int:
        """The last row that the attack reaches: one that takes few steps stops earlier."""
        limit = self.steps if attack.max_steps is None else min(self.steps, attack.max_steps)
        return self.rows(attack) - 1 - (self.steps - limit)

    def keeps(self, row: int, attack: Attack) -> bool:
        """Whether a row is recorded: the clean point, each ``every``-th and the last."""
        return row % self.every == 0 or row == self.last_row(attack)

    def schema(self, model: SplitModel, attack: Attack) -> pa.Schema:
        """Columns with units, and in the metadata what decided them."""
        about = {
            "attack": attack.name, "settings": dict(attack.settings), "steps": self.steps,
            "rows": self.rows(attack), "every": self.every, "restarts": self.restarts,
            "seed": self.seed, "keep": self.keep, "classes": model.classes,
            "head": model.head_name, "log_geometry_band": model.head.log_geometry_band,
        }  # fmt: skip
        extra = [TARGET_FIELD] if attack.targeted else []
        kept = []
        if self.keep:
            kept.append(pa.field("logits", pa.list_(pa.float32(), model.classes)))
        if self.keep == "features":
            kept.append(pa.field("features", pa.list_(pa.float32(), model.head.weight.shape[1])))
        units = {one.name: (one.unit, one.version) for one in self.measures}
        schema = trajectory_schema(units, about, extra)
        for one in kept:
            schema = schema.append(one)
        return schema


def walk(
    prober: Prober, attack: Attack, recording: Recording, ids: Sequence[int], restart: int
) -> Iterator[tuple[int, Probe]]:
    """The probes of one walk, row by row: the clean point, a random start if any, then each step.

    Twenty steps cost 21 forwards and at most 21 backwards (22 and 22 with a random start). Only a targeted attack
    whose input gradient norms are measured needs a second backward a row: these are gradients of two functions.
    """
    measured = all_needs(one.needs for one in recording.measures)
    last = recording.last_row(attack)

    def probe_at(x: Tensor, row: int, moves_on: bool) -> Probe:
        needs = attack.needs if moves_on else frozenset()
        probe = prober(x, needs | measured if recording.keeps(row, attack) else needs)
        _check_finite(probe, ids, row)
        return probe

    def draws(row: int) -> Streams:
        return Streams(recording.seed, ids, restart, row)

    probe = probe_at(prober.clean, 0, moves_on=attack.start is None)
    state = attack.init(probe, draws(0))
    yield 0, probe
    first = 1
    if attack.start is not None:
        probe = probe_at(attack.start(probe, draws(0)), first, moves_on=True)
        yield first, probe
        first += 1
    _check_gradient(probe, attack)
    for row in range(first, last + 1):
        x, state = attack.step(probe, state, prober, draws(row))
        probe = probe_at(x, row, moves_on=row < last)
        yield row, probe


def _check_finite(probe: Probe, ids: Sequence[int], row: int) -> None:
    finite = torch.isfinite(probe.logits).all(dim=1)
    if not finite.all():
        example = ids[int((~finite).nonzero()[0])]
        raise InputError(
            f"the model gave NaN or infinite logits for example {example} at row {row} of its walk; "
            "check the model's weights and its number type (float16 overflows above 65504)"
        )


def _check_gradient(probe: Probe, attack: Attack) -> None:
    """An attack that cannot move anything would record a flat line and look like robustness."""
    gradient = probe.objective_grad
    if OBJECTIVE_GRAD not in attack.needs or gradient is None:
        return
    if not gradient.any():
        raise InputError(
            f"the gradient of the loss is exactly zero for all {len(gradient)} images of a batch, so {attack.name} "
            "cannot move: the model masks its gradient (rounding, thresholds, detach, a dead layer). "
            "Replace the step that stops it by a differentiable one"
        )


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
    schema: pa.Schema | None = None,
    observer: Observer | None = None,
    progress: Callable[[int], None] | None = None,
) -> pa.RecordBatch:
    """All walks of one batch as rows, sorted by example, restart and step."""
    schema = schema or recording.schema(model, attack)
    seen: list[dict[str, np.ndarray]] = []
    for restart in range(recording.restarts):
        prober = Prober(model, x, y, target, attack.objective, aims=attack.targeted)
        for row, probe in walk(prober, attack, recording, ids, restart):
            if recording.keeps(row, attack):
                values = read(probe, recording.measures)
                seen.append(_index_columns(probe, restart, row, attack) | values | _kept(probe, recording))
                if observer is not None:
                    observer.see(restart, row, probe, values)
            if progress is not None:
                progress(len(ids))
    columns: dict[str, Any] = {
        name: np.stack([one[name] for one in seen], axis=1) for name in seen[0]
    }  # (n, restarts · rows, …): rows of one example stay together
    columns["example"] = np.repeat(np.asarray(ids, dtype=np.int64), len(seen)).reshape(len(ids), -1)
    columns["run"] = None
    count = len(ids) * len(seen)
    arrays = [
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([run]))
        if one.name == "run"
        else _arrow(columns[one.name], one, count)
        for one in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


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
    measures   names or Measure objects; None means all closed-form ones (``measures.available()``)
    ids        distinct numbers that key each image's random numbers; its position by default
    restarts   walks from each image (useful with a random start); ``column(name, restart=r)`` reads one
    target     class(es) for a targeted attack; by default the least likely class of each clean image
    every      record row 0, each ``every``-th and the last
    keep       "logits" or "features" to store those too
    progress   called with the number of example-steps done

    The rows of an example depend on that example, the seed and its id, not on batch size or order
    (beyond float error). Returns a Trajectory on the CPU. Raises InputError for input that cannot be used.
    """
    x = check_images(x)
    y = check_labels(y, len(x))
    split_model = model if isinstance(model, SplitModel) else split(model, x)
    split_model.check_fresh()
    split_model.check_accepts(x)
    y = check_labels(y, len(x), split_model.classes)
    ids = check_ids(ids, len(x))
    target = check_target(target, y, attack, split_model.classes)
    recording = Recording(steps, resolve(measures), seed, restarts, every, keep)
    schema = recording.schema(split_model, attack)
    size = choose_batch_size(split_model, batch_size)
    batches = [
        record_batch(
            split_model, x[rows], y[rows], ids[rows], attack, recording,
            target=None if target is None else target[rows],
            run=attack.name, schema=schema, progress=progress,
        )
        for rows in (slice(first, first + size) for first in range(0, len(x), size))
    ]  # fmt: skip
    return Trajectory(pa.Table.from_batches(batches, schema=schema).unify_dictionaries())
