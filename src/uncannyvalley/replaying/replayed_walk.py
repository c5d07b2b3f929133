"""A recorded walk under another head: the same iterates, every measure of the head computed anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from uncannyvalley.checks import is_number
from uncannyvalley.errors import InputError
from uncannyvalley.head import Head
from uncannyvalley.measures import available, read, resolve
from uncannyvalley.replaying.kept_walk import KEPT, NORM, KeptWalk, kept_walk
from uncannyvalley.replaying.other_heads import other_head
from uncannyvalley.replaying.stored_probe import reason_against, stored_probe
from uncannyvalley.trajectory import INDEX_FIELDS, Trajectory, trajectory_schema
from uncannyvalley.types import Measure

if TYPE_CHECKING:
    from uncannyvalley.run.folder import RunFolder
    from uncannyvalley.splitting import SplitModel
    from uncannyvalley.storing.places import Place

CARRIED = ("distance_linf", "distance_l2", NORM)
"""Measures of the image and of φ, which no head changes: taken over as they were recorded."""

LOWEST, HIGHEST = 1e-6, 1e6
"""Temperatures beyond these say nothing more: logits become infinite, or all the same."""


RECORDED = "recorded"
"""Name of the head of the recording."""


@dataclass(frozen=True)
class ChosenHead:
    """The head to replay with, before its division by the temperature.

    name   "recorded", "given", "etf", "smoothed" or a file         apply  whether logits must be made from features
    """

    head: Head
    name: str
    temperature: float

    @property
    def apply(self) -> bool:
        return self.name != RECORDED

    @property
    def words(self) -> str:
        """In a few letters: "T = 4", "etf", "etf, T = 4"."""
        temperature = f"T = {self.temperature:g}"
        if not self.apply:
            return temperature
        name = Path(self.name).name
        return name if self.temperature == 1 else f"{name}, {temperature}"


def replay(
    walk: "RunFolder | Trajectory | str | Place",
    *,
    temperature: float | int | None = None,
    head: "Head | str | Path | None" = None,
    recorded_head: "Head | SplitModel | None" = None,
    measures: Sequence[str | Measure] | None = None,
) -> Trajectory:
    """The recorded path under another head, from what the run kept: no network, no images, no GPU.

    walk           a run folder or its path, recorded with --keep logits or features, or a Trajectory recorded with ``keep``
    temperature    T in [1e-6, 1e6]: the head becomes W/T, b/T and its logits z/T
    head           a Head, FILE.safetensors (weight, bias), "etf" (the nearest simplex frame) or "smoothed" (fitted to the walk's
                   clean features with smoothed labels); z = W'φ + b'. Needs kept features. With a temperature: W'/T, b'/T
    recorded_head  the head a Trajectory was recorded with (or the SplitModel); a run folder keeps its own
    measures       names; None means all closed-form ones and those that were recorded

    Returns a Trajectory with the same examples, restarts and steps. ``predicted``, ``adversarial`` and every measure of the
    head are computed anew in float64 (log κ of W/T: z/T in its softmax, and − 2 log T); ``feature_norm`` and distances are
    carried over; measures that need the network (input gradients, inner layers) are left out. ``about["replayed"]`` says
    temperature, head, and what was left out and why. It replays the recorded path: an attack on the changed head would
    choose its own steps, and is another run. Raises InputError where nothing was kept or a head does not fit.
    """
    kept = kept_walk(walk, recorded_head)
    return replay_kept(kept, chosen_head(kept, temperature, head), measures)


def chosen_head(
    walk: KeptWalk, temperature: float | int | None, head: "Head | str | Path | None"
) -> ChosenHead:
    """What to replay ``walk`` with; InputError where neither was given, or one cannot be used."""
    if temperature is None and head is None:
        raise InputError(
            "say what to replay with: temperature=, head= or both (uncanny replay: --temperature, --head)"
        )
    used = 1.0 if temperature is None else check_temperature(temperature)
    if head is None:
        return ChosenHead(walk.recorded_head("a temperature"), RECORDED, used)
    return ChosenHead(*other_head(walk, head), used)


def check_temperature(temperature: object) -> float:
    """``temperature`` as a number that logits can be divided by; InputError otherwise."""
    if not (is_number(temperature) and LOWEST <= temperature <= HIGHEST):
        raise InputError(
            f"temperature must be a number between {LOWEST:g} and {HIGHEST:g}, got {temperature!r}"
        )
    return float(temperature)


def replay_kept(
    walk: KeptWalk, chosen: ChosenHead, measures: Sequence[str | Measure] | None = None
) -> Trajectory:
    """``walk`` under the chosen head; see ``replay``."""
    recorded = [one.name for one in walk.schema if (one.metadata or {}).get(b"unit") is not None]
    carried = [name for name in recorded if name in CARRIED]
    wanted, left_out = _readable(walk, chosen, _wanted(recorded, measures))
    wanted = [one for one in wanted if one.name not in carried]
    schema = _schema(walk, chosen, recorded, carried, wanted, left_out)
    tables = [_replayed(block, chosen, wanted, schema) for block in walk.blocks()]
    ids = walk.source.ids if isinstance(walk.source, Trajectory) else None
    return Trajectory(pa.concat_tables(tables).unify_dictionaries(), ids)


def _wanted(recorded: Sequence[str], measures: Sequence[str | Measure] | None) -> list[str | Measure]:
    """Measures to compute; recorded ones that only their own process or network knows stay as names."""
    if measures is not None:
        return list(resolve(measures))
    closed_form = {one.name: one for one in resolve(None)}
    known = available()
    return [*closed_form.values(), *(known.get(name, name) for name in recorded if name not in closed_form)]


def _readable(
    walk: KeptWalk, chosen: ChosenHead, wanted: Sequence[str | Measure]
) -> tuple[list[Measure], dict[str, str]]:
    """Measures that can be read off what was kept, and the others with the reason; one row is tried."""
    trial = _probe(next(walk.blocks()).slice(0, 1), chosen)
    found, left_out = [], {}
    for one in wanted:
        if isinstance(one, str):
            left_out[one] = "is of an inner layer" if "@" in one else "is not registered in this process"
        elif one.name in CARRIED:
            continue
        elif (reason := reason_against(one, trial)) is not None:
            left_out[one.name] = reason
        else:
            found.append(one)
    return found, left_out


def _probe(block: pa.Table, chosen: ChosenHead) -> Any:
    return stored_probe(block, chosen.head, chosen.temperature, apply_head=chosen.apply)


def _schema(
    walk: KeptWalk,
    chosen: ChosenHead,
    recorded: Sequence[str],
    carried: Sequence[str],
    wanted: Sequence[Measure],
    left_out: Mapping[str, str],
) -> pa.Schema:
    """Columns as recorded, those computed beyond them behind; in the metadata what was replayed."""
    units = {name: _unit(walk.schema.field(name)) for name in carried}
    units |= {one.name: (one.unit, one.version) for one in wanted}
    order = [*(name for name in recorded if name in units), *(name for name in units if name not in recorded)]
    low, high = chosen.head.log_geometry_band
    cooled = 2 * float(np.log(chosen.temperature))
    about = walk.about | {
        "keep": None,
        "log_geometry_band": (low - cooled, high - cooled),
        "replayed": {"temperature": chosen.temperature, "head": chosen.name, "left_out": dict(left_out)},
    }
    own = {one.name for one in INDEX_FIELDS}
    extra = [one for one in walk.schema if one.name not in (*own, *recorded, *KEPT)]
    return trajectory_schema({name: units[name] for name in order}, about, extra)


def _unit(field: pa.Field) -> tuple[str, int]:
    return field.metadata[b"unit"].decode(), int(field.metadata[b"version"])


def _replayed(block: pa.Table, chosen: ChosenHead, wanted: Sequence[Measure], schema: pa.Schema) -> pa.Table:
    """The rows of a block under the chosen head."""
    probe = _probe(block, chosen)
    predicted = probe.predicted.numpy()
    computed = read(probe, wanted) | {
        "predicted": predicted.astype(np.int32),
        "adversarial": predicted != block["label"].to_numpy(),
    }
    columns = [
        pa.array(computed[one.name], one.type) if one.name in computed else block[one.name] for one in schema
    ]
    return pa.table(columns, schema=schema)
