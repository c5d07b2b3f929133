"""Parquet files under a stamp: streamed in, and read back only if every byte is as it was written."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uncannyvalley.errors import InputError, first_line
from uncannyvalley.storing.files import WHOLE, write_whole
from uncannyvalley.storing.places import Place
from uncannyvalley.storing.stamp import BLANK, is_intact, stamp_file


def write_parquet(
    place: Place,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    facts: Callable[[], dict[str, Any]] = dict,
    writer: str = WHOLE,
) -> str:
    """Stream ``tables`` into one file, whole or not there; returns its SHA-256.

    ``facts`` are asked for after the last table and kept in the file's metadata, beside the stamp. Errors of
    ``tables`` and ``facts`` are raised as they are; only those of writing are CannotWrite.
    """
    digest = ""

    def write(scratch: Path) -> None:
        nonlocal digest
        with pq.ParquetWriter(scratch, schema, compression="zstd", write_page_checksum=True) as file:
            for table in _drawn(iter(tables)):
                file.write_table(table)
            with _from_source():
                described = json.dumps(facts(), sort_keys=True)
            file.add_key_value_metadata({"facts": described, "stamp": BLANK})
        digest = stamp_file(scratch)

    try:
        write_whole(place, write, writer)
    except _SourceError as error:
        raise error.args[0] from error.args[0].__cause__
    return digest


class _SourceError(Exception):
    """Carries what the source of a table raised past the errors of writing it."""


@contextmanager
def _from_source() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a model or remote data may raise it, and the disk is not to blame
        raise _SourceError(error) from error


def _drawn(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    while True:
        with _from_source():
            table = next(tables, None)
        if table is None:
            return
        yield table


def intact_bytes(place: Place) -> bytes:
    """The content of a stamped file; InputError where it cannot be read or is not what was written."""
    try:
        content = place.read_bytes()
    except OSError as error:
        raise InputError(f"{place} cannot be read ({error.strerror or error})") from error
    if not is_intact(content):
        raise InputError(f"{place} is damaged: its content and the SHA-256 in it disagree")
    return content


def read_table(content: bytes, place: Place) -> pa.Table:
    """The table in the bytes of ``place``, its page checksums verified."""
    try:
        return pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{place} cannot be read ({first_line(error)})") from error


def read_facts(content: bytes, place: Place) -> dict[str, Any]:
    """The facts that were written with a table, and its number of rows as ``rows``."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(content))
        return json.loads(metadata.metadata[b"facts"]) | {"rows": metadata.num_rows}
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{place} is no shard of a run ({first_line(error)})") from error
