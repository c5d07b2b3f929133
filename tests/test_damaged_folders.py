"""Full disks, read-only folders, and files that were cut, swapped, doubled, edited, deleted or added by hand: said, and mended."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from folders import ONE, PLAN, differences, files, tiny_network, uncanny, verify_lines
from full_disk import no_file_grows_beyond
from uncannyvalley import InputError
from uncannyvalley.run.folder import open_run
from uncannyvalley.storing.stamp import MARK, stamp
from uncannyvalley.study.dataset import dataset_of
from uncannyvalley.study.folder import open_study

SHARD = "shards/part-00001.parquet"


class Made:
    """A finished study of two runs, and one of a single run, with the commands that made them."""

    def __init__(self, place: Path) -> None:
        tiny_network(place)
        (place / "study.toml").write_text(PLAN)
        (place / "run.toml").write_text(ONE)
        self.place, self.study, self.run = place, place / "study", place / "run"
        uncanny(*self.command(self.study))
        uncanny(*self.command(self.run))

    def command(self, out: Path) -> list[str]:
        """What makes ``out``, by its name."""
        return ["run", str(self.place / f"{out.name}.toml"), "--out", str(out), "--no-pages"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(made.run, tmp_path / "run"))


def is_mended(made: Made, folder: Path) -> None:
    """The same command makes the folder whole, and then has nothing to do."""
    uncanny(*made.command(folder))
    assert differences(folder, made.study if folder.name == "study" else made.run) == []
    assert verify_lines(folder) == []
    assert "nothing to record" in uncanny(*made.command(folder)).output


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """A small file system in memory at ``place``; skipped where mounting is refused."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is refused here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


@pytest.mark.parametrize("name", ["run", "study"])
@pytest.mark.parametrize("kilobytes", [4, 40, 120])
def test_a_disk_that_fills_up_at_any_point(made: Made, tmp_path: Path, name: str, kilobytes: int) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, f"size={kilobytes}k"):
        said = uncanny(*made.command(disk / name), code=2).output
        assert "cannot write" in said
        assert os.strerror(errno.ENOSPC) in said
        assert not [one for one in files(disk) if ".tmp" in one]
        remount(disk, "size=50m")
        is_mended(made, disk / name)


@pytest.mark.parametrize("name", ["run", "study"])
@pytest.mark.parametrize("limit", [600, 14_000])
def test_files_that_cannot_grow(made: Made, tmp_path: Path, name: str, limit: int) -> None:
    """A full disk where nothing can be mounted: files of more than ``limit`` bytes are refused."""
    with no_file_grows_beyond(limit):
        said = uncanny(*made.command(tmp_path / name), code=2).output
    assert "cannot write" in said
    assert not [one for one in files(tmp_path) if ".tmp" in one]
    is_mended(made, tmp_path / name)


@pytest.mark.parametrize("name", ["run", "study"])
def test_a_folder_that_cannot_be_written(made: Made, tmp_path: Path, name: str) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=50m"):
        remount(disk, "ro")
        assert "cannot write" in uncanny(*made.command(disk / name), code=2).output
        assert files(disk) == set()
        remount(disk, "rw")
        folder = Path(shutil.copytree(made.study if name == "study" else made.run, disk / name))
        lost = next(folder.rglob(SHARD))
        lost.unlink()
        remount(disk, "ro")
        assert "cannot write" in uncanny(*made.command(folder), code=2).output
        assert any(lost.name in line for line in verify_lines(folder))
        remount(disk, "rw")
        is_mended(made, folder)


def test_a_finished_folder_can_be_read_where_it_cannot_be_written(made: Made, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=50m"):
        shutil.copytree(made.run, disk / "run")
        shutil.copytree(made.study, disk / "study")
        remount(disk, "ro")
        for folder in (disk / "run", disk / "study"):
            assert verify_lines(folder) == []
            assert dataset_of(open_study(folder)).count_rows() > 0
            uncanny("show", folder)
        assert len(open_run(disk / "run").trajectory) == 10


def cut(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9999])
@pytest.mark.parametrize(
    "name", [SHARD, "controls/noise/" + SHARD, "images/part-00001.parquet", "head.safetensors"]
)
def test_a_file_cut_by_hand(made: Made, run: Path, name: str, keep: float) -> None:
    cut(run / name, keep)
    assert any(name in line for line in verify_lines(run))
    read = {"shards": lambda: open_run(run).trajectory, "images": lambda: open_run(run).images(),
            "head.safetensors": lambda: open_run(run).head(), "controls": lambda: open_run(run).controls()}  # fmt: skip
    with pytest.raises(InputError, match=Path(name).name):
        read[Path(name).parts[0]]()
    is_mended(made, run)


def swap(a: Path, b: Path) -> None:
    a.rename(a.with_name("between")), b.rename(a), a.with_name("between").rename(b)


@pytest.mark.parametrize("manifest", ["listed", "lost"])
@pytest.mark.parametrize("change", ["swapped", "doubled", "of another run", "of a control"])
def test_a_shard_in_the_place_of_another(
    made: Made, run: Path, tmp_path: Path, change: str, manifest: str
) -> None:
    shard = run / SHARD
    if change == "swapped":
        swap(shard, run / "shards" / "part-00000.parquet")
    elif change == "doubled":
        shutil.copy(run / "shards" / "part-00000.parquet", shard)
    elif change == "of another run":
        shutil.copy(next(made.study.glob("*/*/*/*/*/" + SHARD)), shard)
    else:
        shutil.copy(run / "controls" / "noise" / SHARD, shard)
    if manifest == "lost":
        (run / "manifest.json").unlink()
    assert any(SHARD in line for line in verify_lines(run))
    with pytest.raises(InputError, match=r"part-0000[01]\.parquet"):
        _ = open_run(run).trajectory
    with pytest.raises(InputError, match=r"part-0000[01]\.parquet"):
        dataset_of(open_study(run))
    is_mended(made, run)


@pytest.mark.parametrize("change", ["swapped", "doubled"])
def test_images_in_the_place_of_others(made: Made, run: Path, change: str) -> None:
    first, second = run / "images" / "part-00000.parquet", run / "images" / "part-00001.parquet"
    if change == "swapped":
        swap(first, second)
    else:
        shutil.copy(first, second)
    assert any(second.name in line for line in verify_lines(run))
    is_mended(made, run)


def shards_untouched(folder: Path, act: Callable[[], object]) -> bool:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("shards/*")}
    act()
    return before == {path: path.stat().st_mtime_ns for path in folder.rglob("shards/*")}


@pytest.mark.parametrize("change", ["deleted", "emptied", "cut", "edited", "no text", "no object"])
def test_manifests_are_made_again_from_the_shards(made: Made, run: Path, change: str) -> None:
    manifest = run / "manifest.json"
    content = manifest.read_bytes()
    changed = {
        "deleted": b"", "emptied": b"", "cut": content[: len(content) // 2], "no text": b"\xff\xfe\x00" * 40, "no object": b"[]\n",
        "edited": content.replace(b'"rows": 16', b'"rows": 17', 1),
    }  # fmt: skip
    assert changed[change] != content
    manifest.write_bytes(changed[change])
    if change == "deleted":
        manifest.unlink()
    else:
        assert any("manifest.json" in line for line in verify_lines(run))
    assert shards_untouched(run, lambda: uncanny(*made.command(run)))
    is_mended(made, run)


@pytest.mark.parametrize("name", ["run", "study"])
@pytest.mark.parametrize("change", ["edited", "comment", "cut", "emptied", "no text", "deleted"])
def test_a_plan_that_was_changed_is_never_guessed(made: Made, tmp_path: Path, name: str, change: str) -> None:
    folder = Path(shutil.copytree(made.study if name == "study" else made.run, tmp_path / name))
    plan = folder / "plan.toml"
    content = plan.read_bytes()
    changed = {
        "edited": content.replace(b"steps = 3", b"steps = 4"), "comment": content.replace(b"# ", b"#_", 1),
        "cut": content[: len(content) // 2], "emptied": b"", "no text": b"\xff\xfe", "deleted": b"",
    }  # fmt: skip
    assert changed[change] != content
    plan.write_bytes(changed[change])
    if change == "deleted":
        plan.unlink()
        is_mended(made, folder)  # shards prove themselves; a folder may be killed before its plan is there
        return
    before = files(folder)
    said = uncanny(*made.command(folder), code=2).output
    assert "plan.toml" in said or "holds no run" in said
    assert files(folder) == before
    with pytest.raises(InputError, match=r"plan\.toml"):
        open_study(folder)
    if change != "deleted":
        assert any("plan.toml" in line for line in verify_lines(folder))


def test_shards_without_their_plan_are_not_recorded_over(made: Made, run: Path, tmp_path: Path) -> None:
    """They are another run's, whose plan was deleted: another command is refused as if it were there."""
    (run / "plan.toml").unlink()
    tiny_network(tmp_path)
    (tmp_path / "other.toml").write_text(ONE.replace("steps = 3", "steps = 2"))
    before = {path: path.read_bytes() for path in run.rglob("shards/*")}
    uncanny("run", tmp_path / "other.toml", "--out", run, "--no-pages", code=2)
    assert {path: path.read_bytes() for path in run.rglob("shards/*")} == before
    is_mended(made, run)


def test_files_that_do_not_belong_are_left_alone_and_never_read(made: Made, run: Path) -> None:
    rows = dataset_of(open_study(run)).count_rows()
    (run / "notes.txt").write_text("years of work")
    for extra in ("part-00003.parquet", "copy of part-00000.parquet", "part-00000.parquet.bak"):
        shutil.copy(run / "shards" / "part-00000.parquet", run / "shards" / extra)
    assert len(open_run(run).trajectory) == 10
    assert dataset_of(open_study(run)).count_rows() == rows
    said = "\n".join(verify_lines(run))
    assert "part-00003.parquet" in said
    assert "copy of part-00000.parquet" in said
    uncanny(*made.command(run))
    assert (run / "notes.txt").read_text() == "years of work"
    assert (run / "shards" / "copy of part-00000.parquet").exists()


def test_what_a_killed_process_left_is_removed_and_never_read(made: Made, run: Path) -> None:
    left = [
        run / "shards" / "part-00001.parquet.123.whole.tmp",
        run / "images" / "part-00000.parquet.9.whole.tmp",
    ]
    for scratch in left:
        scratch.write_bytes(b"half of a shard")
    assert len(open_run(run).trajectory) == 10
    assert set(open_run(run).images()) == set(range(5))
    assert dataset_of(open_study(run)).count_rows() == 40
    is_mended(made, run)


def test_a_manifest_of_another_run(made: Made, run: Path) -> None:
    shutil.copy(run / "controls" / "noise" / "manifest.json", run / "manifest.json")
    assert verify_lines(run)
    with pytest.raises(InputError, match=r"manifest|part-00000"):
        _ = open_run(run).trajectory
    is_mended(made, run)


def test_a_head_of_another_network(made: Made, run: Path) -> None:
    """Whole by itself, of the same shape, and wrong."""
    head = run / "head.safetensors"
    content = head.read_bytes()
    blank = content.replace(content[content.rindex(MARK) + len(MARK) :][:64], b"0" * 64)
    tail = bytearray(blank)
    tail[-1] ^= 1
    head.write_bytes(stamp(bytes(tail)))
    assert head.read_bytes() != content
    assert any("head.safetensors" in line for line in verify_lines(run))
    is_mended(made, run)
    assert head.read_bytes() == content


@pytest.mark.parametrize("arguments", [[], ["--overwrite"], ["--part", "1/2"]])
def test_a_folder_of_somebody_else_is_never_touched(made: Made, tmp_path: Path, arguments: list[str]) -> None:
    """Not even where it is partitioned by a model, as ours are, and the run fails."""
    theirs = tmp_path / "run" / "model=mine" / "part.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    (theirs.parent / "draft.tmp").write_text("weeks of work")
    uncanny(*made.command(tmp_path / "run"), *arguments, code=2)
    assert theirs.read_text() == "years of work"
    assert (theirs.parent / "draft.tmp").exists()


def test_derived_files_follow_what_they_are_derived_from(made: Made, tmp_path: Path) -> None:
    """Pages of a run without controls are drawn anew once it has some; and damaged ones are."""
    plan, out = tmp_path / "plan.toml", tmp_path / "run"
    tiny_network(tmp_path)
    plan.write_text("controls = false\n" + ONE)
    uncanny("run", plan, "--out", out)
    alone = (out / "report.html").read_text()
    plan.write_text(ONE)
    uncanny("run", plan, "--out", out)
    page = (out / "report.html").read_text()
    assert "assist" in page
    assert page != alone
    (out / "report.html").write_text(page.replace("assist", "a55ist"))
    assert any("report.html" in line for line in verify_lines(out))
    uncanny("run", plan, "--out", out)
    assert verify_lines(out) == []
    assert (out / "report.html").read_text() == page


@pytest.mark.parametrize("name", [SHARD, "images/part-00001.parquet", "head.safetensors"])
def test_a_file_that_cannot_be_read(run: Path, name: str) -> None:
    """As by a bad sector; here a folder is in its place."""
    (run / name).unlink()
    (run / name).mkdir()
    assert any(name in line for line in verify_lines(run))
    readers = (lambda: open_run(run).trajectory, lambda: open_run(run).images(), lambda: open_run(run).head())
    with pytest.raises(InputError, match=Path(name).name):
        readers[("shards", "images", "head.safetensors").index(Path(name).parts[0])]()
