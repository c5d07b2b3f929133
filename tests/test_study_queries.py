"""A study as one dataset and as a table of results; what trackers are sent; the questions in docs/queries.md."""

import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import uncannyvalley as uv
from conftest import REPOSITORY
from test_curvature_commands import in_process
from uncannyvalley import InputError
from uncannyvalley.cli import printing
from uncannyvalley.run.request import Request
from uncannyvalley.run.workbench import Workbench
from uncannyvalley.study import dataset as dataset_module
from uncannyvalley.study.cells import walks_of
from uncannyvalley.study.dataset import dataset_of
from uncannyvalley.study.driver import carry_out
from uncannyvalley.study.engines.serial import SerialEngine
from uncannyvalley.study.folder import open_study
from uncannyvalley.study.part import EVERYTHING, Part
from uncannyvalley.study.recording import make_folders
from uncannyvalley.study.results import FIGURES, results
from uncannyvalley.study.worker import Worker

SHARPNESS = "log_relative_sharpness"

SMALL = Request(eps=0.3, step_size=0.05, steps=4, limit=24, keep_images=0, shard_examples=8)
SQUARE = replace(SMALL, attack="square", step_size=None, steps=None, attack_arguments={"queries": "10"})

CELLS = {
    "model=demo/data=digits/attack=pgd/measures=few/seed=0": replace(SMALL, measures=["margin"]),
    "model=demo/data=digits/attack=pgd/measures=all/seed=0": SMALL,
    "model=demo/data=digits/attack=pgd/measures=all/seed=1": replace(SMALL, seed=1),
    "model=demo/data=digits/attack=square/measures=all/seed=0": SQUARE,
}
WITH_CONTROLS = "model=demo/data=digits/attack=pgd/measures=all/seed=0"


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench()


def record(folder: Path, bench: Workbench, part: Part = EVERYTHING) -> Path:
    """The study of CELLS; one of its runs has controls."""
    walks = [
        walk
        for place, request in CELLS.items()
        for walk in walks_of(request, folder / place, bench, controls=place == WITH_CONTROLS)
    ]
    folder.mkdir(parents=True)
    make_folders("", walks, folder, part)
    outcome = carry_out(walks, SerialEngine(Worker(workbench=bench)), part=part)
    assert not outcome.failed
    return folder


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, bench: Workbench) -> Path:
    return record(tmp_path_factory.mktemp("studies") / "runs" / "study", bench)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, bench: Workbench) -> Path:
    """Every second shard is there, none is listed yet, one is being written."""
    folder = record(tmp_path_factory.mktemp("studies") / "running", bench, Part(1, 2))
    for manifest in folder.rglob("manifest*.json"):
        manifest.unlink()
    (folder / WITH_CONTROLS / "shards" / "part-00001.parquet.17.whole.tmp").write_bytes(b"half a sh")
    return folder


def loaded(folder: Path) -> Iterator[tuple[Mapping[str, str], pa.Table]]:
    """Labels and rows of each run, read one by one."""
    for one in open_study(folder).runs:
        yield one.labels, one.run.trajectory.table


def test_the_dataset_holds_the_rows_of_every_run_under_its_labels(complete: Path) -> None:
    found = dataset_of(open_study(complete)).to_table()
    assert found.schema.names[:5] == ["model", "data", "attack", "measures", "seed"]
    assert [found.schema.field(name).type for name in ("model", "seed")] == [pa.string(), pa.int64()]
    first = 0
    for labels, rows in loaded(complete):
        part = found.slice(first, rows.num_rows)
        first += rows.num_rows
        assert {name: str(part[name].unique().to_pylist()[0]) for name in labels} == dict(labels)
        assert all(len(part[name].unique()) == 1 for name in labels)
        for name in rows.column_names:
            assert part[name].to_pylist() == rows[name].to_pylist(), name
        for name in set(found.column_names) - set(rows.column_names) - set(labels):
            assert part[name].null_count == rows.num_rows, name
    assert first == found.num_rows
    assert found.schema.field(SHARPNESS).metadata[b"unit"] == b"log"
    assert not found.schema.metadata  # what one run says of itself is not true of all


def test_filters_on_labels_open_only_the_files_they_need(complete: Path) -> None:
    found = dataset_of(open_study(complete))
    assert len(found.files) == 12
    wanted = (ds.field("attack") == "pgd") & (ds.field("seed") == 1)
    files = [fragment.path for fragment in found.get_fragments(filter=wanted)]
    assert len(files) == 3
    assert all("attack=pgd/measures=all/seed=1" in path for path in files)
    assert found.to_table(filter=wanted & (ds.field("step") == 0)).num_rows == 24


def test_controls_are_told_apart_by_the_column_walk(complete: Path) -> None:
    study = open_study(complete)
    found = dataset_of(study, controls=True).to_table(columns=["attack", "measures", "seed", "walk", "run"])
    without = dataset_of(study)
    assert "walk" not in without.schema.names
    counts = {row["walks"]: row["run_count"] for row in _counted(found)}
    assert counts["attack"] == without.count_rows()
    run = uv.open_run(complete / WITH_CONTROLS)
    assert {name: counts[name] for name in ("noise", "assist")} == {
        name: one.table.num_rows for name, one in run.controls().items()
    }
    beside = found.filter(ds.field("walk") != "attack")
    assert set(beside["attack"].to_pylist()) == {"pgd"}
    assert set(beside["seed"].to_pylist()) == {0}


def _counted(table: pa.Table) -> list[dict]:
    return table.rename_columns({"walk": "walks"}).group_by("walks").aggregate([("run", "count")]).to_pylist()


def test_a_running_study_gives_the_shards_that_are_finished(running: Path, complete: Path) -> None:
    for check in (True, False):
        found = dataset_of(open_study(running), check=check)
        assert len(found.files) == 6
        assert found.count_rows() == sum(rows.num_rows for _, rows in loaded(running))
        assert not any(".tmp" in path or "controls" in path for path in found.files)
    assert found.schema == dataset_of(open_study(complete)).schema


def test_a_flipped_bit_is_found_before_the_scan_and_by_the_scan(complete: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flipped"
    shutil.copytree(complete, folder)
    shard = folder / WITH_CONTROLS / "shards" / "part-00001.parquet"
    content = bytearray(shard.read_bytes())
    column = pq.read_metadata(shard).row_group(0).column(pq.read_schema(shard).get_field_index("margin"))
    content[
        (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 2
    ] ^= 8
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"part-00001\.parquet"):
        dataset_of(open_study(folder))
    unchecked = dataset_of(open_study(folder), check=False)
    with pytest.raises(OSError, match="page integrity"):
        unchecked.to_table()
    with pytest.raises(InputError, match=r"part-00001\.parquet"):
        results(open_study(folder))


def test_a_single_run_is_a_study_of_one(complete: Path) -> None:
    study = open_study(complete / WITH_CONTROLS)
    found = dataset_of(study).to_table()
    trajectory = uv.open_run(complete / WITH_CONTROLS).trajectory
    assert found["margin"].to_pylist() == trajectory.table["margin"].to_pylist()
    assert set(found["attack"].to_pylist()) == {"pgd"}
    (row,) = results(study).to_pylist()
    assert (row["folder"], row["state"], row["images"]) == (".", "complete", 24)


def test_studies_that_cannot_be_one_dataset_say_why(
    complete: Path, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = [walk for place, one in CELLS.items() for walk in walks_of(one, tmp_path / place, bench)]
    make_folders("", walks, tmp_path)
    with pytest.raises(InputError, match="holds no finished shard yet"):
        dataset_of(open_study(tmp_path))
    columns = {"few": pa.int32(), "all": pa.string()}

    def read_schema(place: Path) -> pa.Schema:
        kind = next(kind for label, kind in columns.items() if f"measures={label}" in str(place))
        return pa.schema([pa.field(name, kind)])

    monkeypatch.setattr(dataset_module, "_read_schema", read_schema)
    name = "odd"
    with pytest.raises(InputError, match=r"columns of one name and different types.*odd"):
        dataset_of(open_study(complete))
    columns, name = dict.fromkeys(columns, pa.string()), "attack"
    with pytest.raises(InputError, match="a column 'attack', which is also an axis"):
        dataset_of(open_study(complete))


def test_lists_of_different_lengths_become_lists(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = {"few": 10, "all": 100}

    def read_schema(place: Path) -> pa.Schema:
        length = next(length for label, length in lengths.items() if f"measures={label}" in str(place))
        return pa.schema([pa.field("logits", pa.list_(pa.float32(), length))])

    monkeypatch.setattr(dataset_module, "_read_schema", read_schema)
    assert dataset_of(open_study(complete)).schema.field("logits").type == pa.list_(pa.float32())


def test_results_are_the_summaries_of_each_run(complete: Path) -> None:
    study = open_study(complete)
    rows = results(study).to_pylist()
    assert [row["folder"] for row in rows] == list(CELLS)
    for row, one in zip(rows, study.runs, strict=True):
        run = uv.open_run(complete / row["folder"])
        assert {name: str(row[name]) for name in one.labels} == dict(one.labels)
        assert (row["state"], row["shards"], row["shards_done"], row["failed"]) == ("complete", 3, 3, 0)
        assert (row["key"], row["eps"], row["images"]) == (run.plan.key, 0.3, 24)
        assert row["rows"] == run.trajectory.table.num_rows
        assert row["seconds"] > 0
        assert json.loads(row["settings"]) == run.plan.attack.settings
        if row["measures"] == "few":
            assert row["depth"] is row["climb_gini"] is row["valley_low"] is None
            assert row["flipped"] > 0.5
            continue
        summary = uv.phases(run.trajectory).own_summary
        assert row["examples"] == summary.examples
        for name in set(FIGURES) - {"accuracy_clean", "accuracy_end"}:
            figure = getattr(summary, name)
            found = [row[one] for one in (name, f"{name}_low", f"{name}_high")]
            assert found == [
                None if np.isnan(one) else one for one in (figure.value, figure.low, figure.high)
            ]
        assert row["descent_norm"] == summary.shares["descent"]["descent_norm"]
    assert [row["steps"] for row in rows] == [4, 4, 4, None]
    assert not any("trajectory" in vars(one.run) for one in study.runs)  # memory of one run


def test_accuracies_are_shares_of_all_images(complete: Path) -> None:
    for row in results(open_study(complete)).to_pylist():
        wrong = uv.open_run(complete / row["folder"]).trajectory.table.to_pandas()
        walks = wrong.sort_values("step").groupby("example")["adversarial"]
        assert row["accuracy_clean"] == pytest.approx(1 - walks.first().mean())
        assert row["accuracy_end"] == pytest.approx(1 - walks.last().mean())
        assert row["accuracy_end"] < row["accuracy_clean"]
        assert row["accuracy_end_low"] <= row["accuracy_end"] <= row["accuracy_end_high"]


def test_results_of_a_running_study_say_how_far_it_came(running: Path) -> None:
    rows = results(open_study(running), controls=True).to_pylist()
    assert [row["walk"] for row in rows] == ["attack", "attack", "noise", "assist", "attack", "attack"]
    assert [row["state"] for row in rows[:3]] == ["2 of 3 shards", "1 of 3 shards", "2 of 3 shards"]
    assert [row["images"] for row in rows[:3]] == [16, 8, 16]
    assert all(row["rows"] > 0 for row in rows)


def test_units_and_roles_are_in_the_fields(complete: Path) -> None:
    schema = results(open_study(complete)).schema
    assert schema.field("depth_low").metadata == {b"role": b"number", b"unit": b"nats"}
    assert schema.field("flipped").metadata[b"unit"] == b"fraction"
    assert schema.field("attack").metadata == {b"role": b"label"}
    numbers = [one for one in schema if one.metadata[b"role"] == b"number"]
    assert all(one.metadata[b"unit"] for one in numbers)


def test_the_command_prints_and_writes_the_table(complete: Path, tmp_path: Path) -> None:
    table = results(open_study(complete))
    as_csv, as_parquet = tmp_path / "new" / "results.csv", tmp_path / "results.parquet"
    as_parquet.write_text("the old table")
    shown = in_process("results", complete, "--csv", as_csv, "--parquet", as_parquet).stdout
    shown = " ".join(shown.split())  # long paths wrap the lines
    for text in (
        "4 rows; model demo",
        "square",
        "valley",
        f"{table['accuracy_clean'][0].as_py():.0%}",
        str(as_csv.name),
        str(as_parquet.name),
    ):
        assert text in shown, text
    with as_csv.open() as file:
        lines = list(csv.DictReader(file))
    assert [line["folder"] for line in lines] == list(CELLS)
    assert [float(line["flipped"]) for line in lines] == table["flipped"].to_pylist()
    assert lines[0]["depth"] == ""
    again = pq.read_table(as_parquet)
    assert again.equals(table)
    assert again.schema.field("depth").metadata == table.schema.field("depth").metadata
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["new", "results.csv", "results.parquet"]


def test_the_command_prints_json_and_the_state_of_a_running_study(complete: Path, running: Path) -> None:
    printed = json.loads(in_process("results", complete, "--controls", "--json").stdout)
    assert printed["runs"] == results(open_study(complete), controls=True).to_pylist()
    assert printed["units"]["depth"] == "nats"
    assert "2/3" in in_process("results", running).stdout


def test_the_table_drops_columns_before_it_breaks_them(
    complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width, shown in ((120, {"flipped", "seconds"}), (60, {"flipped"})):
        monkeypatch.setattr(printing.console, "_width", width)
        lines = in_process("results", complete).stdout.splitlines()
        header = next(line for line in lines if "attack" in line and "images" in line).split()
        assert shown == {"flipped", "seconds"} & set(header)
        assert sum("square" in line for line in lines) == 1
        assert max(map(len, lines[1:7])) <= width


def test_the_command_says_what_is_wrong(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    for arguments, says in (
        ((tmp_path,), "holds no run and no study"),
        ((tmp_path / "nowhere",), "does not exist"),
        ((complete, "--csv", tmp_path), "is a folder; give the name of a file"),
        ((complete, "--wandb", "valleys"), "pip install wandb"),
    ):
        assert says in in_process("results", *arguments, code=2).stderr, says


def blocks(name: str) -> list[str]:
    """The Python of a page of the documentation, block by block."""
    text = (REPOSITORY / "docs" / name).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def as_mapping(medians: object) -> dict[tuple[str, int], float]:
    """(attack, step) → median, of whatever library."""
    if isinstance(medians, pa.Table):
        columns = [
            medians[name].to_pylist() for name in ("attack", "step", f"{SHARPNESS}_approximate_median")
        ]
        return {(attack, step): value for attack, step, value in zip(*columns, strict=True)}
    if hasattr(medians, "rows"):
        return {(attack, step): value for attack, step, value in medians.rows()}
    if hasattr(medians, "to_dict"):
        return medians.to_dict()
    assert isinstance(medians, list)
    return {(attack, step): value for attack, step, value in medians}


@pytest.mark.parametrize("which", ["complete", "running"])
def test_the_documentation_asks_the_same_question_everywhere(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = request.getfixturevalue(which)
    (tmp_path / "runs").mkdir()
    os.symlink(folder, tmp_path / "runs" / "study")
    monkeypatch.chdir(tmp_path)
    expected: dict[tuple[str, int], list[float]] = {}
    for labels, rows in loaded(folder):
        for step, value in zip(
            rows["step"].to_pylist(),
            rows[SHARPNESS].to_pylist() if SHARPNESS in rows.column_names else [],
            strict=False,
        ):
            expected.setdefault((labels["attack"], step), []).append(value)
    names: dict[str, object] = {}
    answers = []
    for block in blocks("queries.md"):
        names.pop("medians", None)
        exec(block, names)
        if "medians" in names:
            answers.append(as_mapping(names["medians"]))
    assert len(answers) == 6
    exact = {place: float(np.median(values)) for place, values in expected.items()}
    for answer in answers[1:]:
        assert answer == pytest.approx(exact)
    assert set(answers[0]) == set(exact)
    for place, values in expected.items():  # approximate, but among the values in the middle
        low, high = (
            np.quantile(values, 0.4, method="lower"),
            np.quantile(values, 0.6, method="higher"),
        )
        assert low <= answers[0][place] <= high
    best = names["best"]
    assert isinstance(best, pa.Table)
    assert best.num_rows == 4
