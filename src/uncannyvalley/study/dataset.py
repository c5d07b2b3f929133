"""All rows of a study as one Arrow dataset: nothing is loaded, and what is read was checked."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from uncannyvalley.errors import InputError, first_line
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.storing.places import Place, is_local
from uncannyvalley.study.folder import Study
from uncannyvalley.study.task import ATTACK

WALK = "walk"
"""Partition column that tells a run's own walk, ATTACK, from its controls, which have their names."""


@dataclass(frozen=True)
class Recorded:
    """One walk that a study holds, finished or not: the labels of its run, its name (ATTACK, or the control's), its folder."""

    labels: Mapping[str, str]
    walk: str
    run: RunFolder


def recorded_walks(study: Study, controls: bool) -> Iterator[Recorded]:
    """The walk of each run in the study's order, with ``controls`` each followed by those beside it."""
    for one in study.runs:
        yield Recorded(one.labels, ATTACK, one.run)
        if controls:
            for name, run in one.run.control_folders().items():
                yield Recorded(one.labels, name, run)


def dataset_of(study: Study, *, controls: bool = False, check: bool = True) -> ds.Dataset:
    """Every shard that is finished now as one lazy dataset, in the study's order; scratch files are left out.

    The first columns are the run's labels as hive partitions: model, data, attack, measures (strings) and seed
    (int64); with ``controls`` also ``walk``: attack, noise or assist. Filters on them open only the shards that
    match. Then come the columns of the shards, where null means that the run did not record it; units are in the
    field metadata.

    check   stream every shard against its SHA-256 first; the checksums of pages are verified by each scan anyway

    Raises InputError where no shard is finished, where one is missing or changed, and where runs have columns of one
    name and different types.
    """
    found = [(one, _finished(one.run, check)) for one in recorded_walks(study, controls)]
    recorded = [(one, places) for one, places in found if places]
    if not recorded:
        raise InputError(
            f"{study.path} holds no finished shard yet; the command that began it goes on with it"
        )
    first, (place, *_) = recorded[0]
    schema = _with_partitions(_unified(recorded), first, controls)
    return ds.FileSystemDataset.from_paths(
        [_path(place) for _, places in recorded for place in places],
        schema=schema,
        format=ds.ParquetFileFormat(
            default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        ),
        filesystem=_file_system(place),
        partitions=[part for one, places in recorded for part in [_partition(one, controls)] * len(places)],
    )


def _finished(run: RunFolder, check: bool) -> list[Place]:
    """The shards that are there, in the order of their rows."""
    if check:
        return run.finished_shards()
    places = (run.shard(number) for number in range(run.plan.shard_count))
    return [place for place in places if place.exists()]


def _values(one: Recorded, controls: bool) -> dict[str, str | int]:
    """Column → value of the partition: labels as they are, the seed as a number."""
    labels: dict[str, str | int] = {**one.labels, "seed": int(one.labels["seed"])}
    return labels | ({WALK: one.walk} if controls else {})


def _partition(one: Recorded, controls: bool) -> ds.Expression | None:
    found = None
    for name, value in _values(one, controls).items():
        equal = ds.field(name) == value
        found = equal if found is None else found & equal
    return found


def _with_partitions(schema: pa.Schema, one: Recorded, controls: bool) -> pa.Schema:
    """The partition columns, then those of the shards; InputError where a measure has the name of a partition."""
    values = _values(one, controls)
    taken = [name for name in values if name in schema.names]
    if taken:
        raise InputError(
            f"the shards have a column {taken[0]!r}, which is also an axis of the study; name the measure otherwise"
        )
    first = [
        pa.field(name, pa.string() if isinstance(value, str) else pa.int64())
        for name, value in values.items()
    ]
    return pa.schema([*first, *schema])


def _unified(recorded: Iterable[tuple[Recorded, list[Place]]]) -> pa.Schema:
    """All columns of all shards; of runs that differ in their seed alone only one footer is read."""
    found: dict[str, pa.Schema] = {}
    for one, places in recorded:
        key = _but_seed(one.run)
        if key not in found:
            found[key] = _read_schema(places[0]).remove_metadata()
    try:
        return pa.unify_schemas(_with_equal_lists(list(found.values())), promote_options="default")
    except pa.ArrowException as error:
        raise InputError(
            f"runs of this study have columns of one name and different types ({first_line(error)}); open them one by one"
        ) from error


def _with_equal_lists(schemas: list[pa.Schema]) -> list[pa.Schema]:
    """Lists of a fixed length, such as logits, as lists of any length where runs have other numbers of classes."""
    fixed = [field for schema in schemas for field in schema if pa.types.is_fixed_size_list(field.type)]
    differing = {
        one.name for one in fixed if any(one.name == other.name and one.type != other.type for other in fixed)
    }
    return [
        pa.schema(
            field.with_type(pa.list_(field.type.value_type)) if field.name in differing else field
            for field in schema
        )
        for schema in schemas
    ]


def _but_seed(run: RunFolder) -> str:
    content = run.plan.model_dump(mode="json", exclude={"recording": {"seed"}})
    return json.dumps(content, sort_keys=True)


def _read_schema(place: Place) -> pa.Schema:
    try:
        return pq.read_schema(_path(place), filesystem=_file_system(place))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{place} cannot be read ({first_line(error)})") from error


def _file_system(place: Place) -> pafs.FileSystem:
    if is_local(place):
        return pafs.LocalFileSystem()
    return pafs.PyFileSystem(pafs.FSSpecHandler(place.fs))  # type: ignore[attr-defined]


def _path(place: Place) -> str:
    """How Arrow's file systems name it."""
    return str(place.absolute()) if is_local(place) else place.path  # type: ignore[attr-defined]
