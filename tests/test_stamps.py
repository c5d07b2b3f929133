"""Files that prove themselves: any flipped bit is noticed, in files, in manifests and in where they lie."""

import errno
import fcntl
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncannyvalley import InputError
from uncannyvalley.storing.files import CannotWrite, remove_scratch, write_bytes
from uncannyvalley.storing.locks import LOCK, held
from uncannyvalley.storing.manifest import Manifest, manifest_name, manifests_of
from uncannyvalley.storing.parquet import intact_bytes, read_facts, read_table, write_parquet
from uncannyvalley.storing.places import place_of, presence
from uncannyvalley.storing.stamp import BLANK, is_intact, stamp, stamp_file


@given(before=st.binary(max_size=60), after=st.binary(max_size=60), data=st.data())
def test_any_flipped_bit_breaks_a_stamp(before: bytes, after: bytes, data: st.DataObject) -> None:
    content = stamp(before + BLANK.encode() + after)
    assert is_intact(content)
    flipped = bytearray(content)
    flipped[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert not is_intact(bytes(flipped))
    cut = data.draw(st.integers(0, len(content) - 1))
    assert not is_intact(content[:cut])


def test_a_stamp_is_the_same_in_memory_and_on_disk(tmp_path: Path) -> None:
    content = b"x" * 10_000 + BLANK.encode() + b"y"
    (tmp_path / "file").write_bytes(content)
    stamp_file(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == stamp(content)
    assert not is_intact(b"nothing of the kind")
    assert not is_intact(b"")


@pytest.fixture
def table() -> pa.Table:
    return pa.table({"example": [0, 1, 2], "loss": [0.5, 1.5, float("nan")]})


def test_a_table_comes_back_with_its_facts(table: pa.Table, tmp_path: Path) -> None:
    place = tmp_path / "part.parquet"
    digest = write_parquet(
        place, table.schema, [table.slice(0, 2), table.slice(2)], lambda: {"queries": {"seen": 3}}
    )
    content = intact_bytes(place)
    assert read_table(content, place).to_pydict()["example"] == [0, 1, 2]
    assert read_facts(content, place) == {"queries": {"seen": 3}, "rows": 3}
    again = write_parquet(
        tmp_path / "again",
        table.schema,
        [table.slice(0, 2), table.slice(2)],
        lambda: {"queries": {"seen": 3}},
    )
    assert digest == again
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["again", "part.parquet"]


def test_every_byte_of_a_table_is_under_its_stamp(table: pa.Table, tmp_path: Path) -> None:
    place = tmp_path / "part.parquet"
    write_parquet(place, table.schema, [table])
    content = place.read_bytes()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        place.write_bytes(flipped)
        with pytest.raises(InputError, match=r"part\.parquet is damaged"):
            intact_bytes(place)


def test_errors_of_the_source_are_not_the_disks(table: pa.Table, tmp_path: Path) -> None:
    def broken():
        yield table
        raise ConnectionError("the share is gone")

    def no_facts():
        raise TimeoutError("nobody answers")

    with pytest.raises(ConnectionError, match="the share is gone"):
        write_parquet(tmp_path / "part", table.schema, broken())
    with pytest.raises(TimeoutError, match="nobody answers"):
        write_parquet(tmp_path / "part", table.schema, [table], no_facts)
    with pytest.raises(CannotWrite, match="cannot write"):
        write_parquet(tmp_path / "nowhere" / "part", table.schema, [table])
    assert not list(tmp_path.iterdir())


def test_manifests_merge_and_prove_themselves(tmp_path: Path) -> None:
    whole = Manifest(
        "key",
        {"part-00000.parquet": {"rows": 1}},
        {"part-00001.parquet": {"error": "no"}},
        {"walk.png": "ab"},
    )
    part = Manifest("key", {"part-00001.parquet": {"rows": 2}}, provenance=[{"engine": "ray"}])
    whole.write(tmp_path / manifest_name(0))
    part.write(tmp_path / manifest_name(0, "2-of-3"))
    part.write(tmp_path / manifest_name(1))
    found = manifests_of(tmp_path, 0)
    assert [one.name for one in found] == ["manifest.json", "manifest.part-2-of-3.json"]
    assert [one.name for one in manifests_of(tmp_path, 1)] == ["manifest-00001.json"]
    merged = Manifest("key")
    for place in found:
        merged.merge(Manifest.read(place))
    assert list(merged.shards) == ["part-00000.parquet", "part-00001.parquet"]
    assert merged.failed == {}  # another process has recorded it since
    assert merged.files == {"walk.png": "ab"}
    with pytest.raises(InputError, match="of another run"):
        Manifest.read(found[0], "another key")
    content = found[0].read_bytes()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 2
        found[0].write_bytes(flipped)
        with pytest.raises(InputError, match=r"manifest\.json (is damaged|cannot be read)"):
            Manifest.read(found[0])


def test_parts_share_a_folder_and_a_whole_run_does_not(tmp_path: Path) -> None:
    with held(tmp_path, "1-of-2"), held(tmp_path, "2-of-2"):
        for writer in ("whole", "1-of-2"):
            with pytest.raises(InputError, match="another process is recording"), held(tmp_path, writer):
                pass
    with held(tmp_path):
        for inside in (tmp_path, tmp_path / "model=a" / "seed=0"):
            with pytest.raises(InputError, match="another process is recording"), held(inside):
                pass
    with held(tmp_path), pytest.raises(InputError, match="another process"), held(tmp_path, "1-of-2"):
        pass


def test_file_systems_without_locks_are_used_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with held(tmp_path):
        assert "cannot be locked (No locks available)" in caplog.text


def test_a_lock_that_went_with_its_folder_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fcntl.flock

    def late(descriptor: int, kind: int) -> None:
        plain(descriptor, kind)
        (tmp_path / "run" / LOCK).unlink()

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(InputError, match="another process"), held(tmp_path / "run"):
        pass


def test_a_part_removes_its_own_scratch_files_alone(tmp_path: Path) -> None:
    for name in ("a.7.3-of-40.tmp", "a.7.13-of-40.tmp", "a.7.whole.tmp"):
        write_bytes(tmp_path / name, b"")
    remove_scratch(tmp_path, "3-of-40")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.7.13-of-40.tmp", "a.7.whole.tmp"]
    remove_scratch(tmp_path)
    assert not list(tmp_path.iterdir())


def test_places_are_paths_or_urls() -> None:
    assert place_of("runs/a") == Path("runs/a")
    assert place_of("file:///runs/a") == Path("/runs/a")
    bucket = place_of("memory://bucket/run")
    write_bytes(bucket / "shards" / "one", b"1")
    assert (bucket / "shards" / "one").read_bytes() == b"1"
    assert [presence(bucket / "shards")(name) for name in ("one", "two")] == [True, False]
    with pytest.raises(InputError, match=r"nowhere://a cannot be opened"):
        place_of("nowhere://a")
