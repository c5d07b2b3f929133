"""What trackers are sent: one run of theirs for each row of the results, however often it is sent.

The stand-ins behave as wandb 0.31 and mlflow 3.17 were seen to.
"""

import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from test_study_queries import record
from uncannyvalley import InputError
from uncannyvalley.run.workbench import Workbench
from uncannyvalley.study.folder import open_study
from uncannyvalley.study.part import Part
from uncannyvalley.study.results import results
from uncannyvalley.study.tracking import rows_of, to_mlflow, to_wandb


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A complete one, and the same with every second shard."""
    root, bench = tmp_path_factory.mktemp("studies"), Workbench()
    return record(root / "complete", bench), record(root / "running", bench, Part(1, 2))


@pytest.fixture(scope="module")
def complete(studies: tuple[Path, Path]) -> pa.Table:
    return results(open_study(studies[0]))


@pytest.fixture(scope="module")
def with_controls(studies: tuple[Path, Path]) -> pa.Table:
    return results(open_study(studies[0]), controls=True)


@pytest.fixture(scope="module")
def running(studies: tuple[Path, Path]) -> pa.Table:
    return results(open_study(studies[1]))


class FakeWandb(types.ModuleType):
    """What ``to_wandb`` takes of W&B: runs by id that are resumed, configs and summaries that are merged."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: dict[str, dict] = {}
        self.refuses = False

    def Settings(self, **settings: object) -> dict:
        assert set(settings) <= {"silent", "console", "disable_git", "disable_code"}
        return settings

    def init(self, **given: object) -> "FakeWandb":
        if self.refuses:
            raise self.Error("No API key configured. Use `wandb login` to log in.")
        assert given["resume"] == "allow"
        assert given["reinit"] == "create_new"
        self.summary = self.runs.setdefault(str(given["id"]), {"inits": []}).setdefault("summary", {})
        self.runs[str(given["id"])]["inits"].append(given)
        return self

    def __enter__(self) -> "FakeWandb":
        return self

    def __exit__(self, *_: object) -> None:
        self.summary = {}


def test_wandb_gets_one_run_a_row_however_often(
    complete: pa.Table, running: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    ids = to_wandb(running, "valleys", group="study")
    assert {fake.runs[one]["summary"]["state"] for one in ids} == {"2 of 3 shards", "1 of 3 shards"}
    assert to_wandb(complete, "valleys", group="study") == ids
    assert len(set(ids)) == len(fake.runs) == complete.num_rows
    for row, one in zip(complete.to_pylist(), ids, strict=True):
        config, summary = fake.runs[one]["inits"][-1]["config"], fake.runs[one]["summary"]
        assert config["attack"] == row["attack"]
        assert config["attack_settings"] == json.loads(row["settings"])
        assert config["key"] == row["key"]
        assert summary["state"] == "complete"
        assert summary["flipped"] == row["flipped"]
        assert ("depth" in summary) == (row["depth"] is not None)
        assert json.dumps([config, summary], allow_nan=False)
    assert fake.runs[ids[1]]["inits"][0]["name"] == "demo digits pgd all seed 0"
    fake.refuses = True
    with pytest.raises(InputError, match="W&B refused the results: No API key"):
        to_wandb(complete, "valleys")


class FakeMlflow:
    """What ``to_mlflow`` takes of MLflow: experiments by name, runs found by a tag, params that never change."""

    def __init__(self) -> None:
        self.experiments: dict[str, types.SimpleNamespace] = {}
        self.runs: list[types.SimpleNamespace] = []
        self.history: list[tuple[str, float]] = []
        self.error = type("MlflowException", (Exception,), {})

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def entity(name: str, *fields: str) -> type:
            return type(
                name,
                (),
                {"__init__": lambda self, *values: vars(self).update(zip(fields, values, strict=True))},
            )

        entities = {
            "Metric": entity("Metric", "key", "value", "timestamp", "step"),
            "Param": entity("Param", "key", "value"),
            "RunTag": entity("RunTag", "key", "value"),
        }
        modules = {
            "mlflow": {}, "mlflow.exceptions": {"MlflowException": self.error}, "mlflow.entities": entities,
            "mlflow.tracking": {"MlflowClient": lambda tracking_uri: self},
        }  # fmt: skip
        for name, content in modules.items():
            module = types.ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)

    def get_experiment_by_name(self, name: str) -> types.SimpleNamespace | None:
        return self.experiments.get(name)

    def create_experiment(self, name: str) -> str:
        if not name:
            raise self.error("Invalid experiment name: ''")
        self.experiments[name] = types.SimpleNamespace(experiment_id=name, lifecycle_stage="active")
        return name

    def search_runs(self, experiments: list[str], query: str, max_results: int) -> list:
        key, value = re.fullmatch(r'tags\."(.*)" = "(.*)"', query).groups()
        return [run for run in self.runs if run.place in experiments and run.data.tags.get(key) == value]

    def create_run(self, experiment: str, tags: dict, run_name: str) -> types.SimpleNamespace:
        data = types.SimpleNamespace(metrics={}, params={}, tags=dict(tags))
        info = types.SimpleNamespace(run_id=f"run-{len(self.runs)}", status="RUNNING", name=run_name)
        self.runs.append(types.SimpleNamespace(place=experiment, data=data, info=info))
        return self.runs[-1]

    def log_batch(self, run_id: str, metrics: list, params: list, tags: list) -> None:
        (run,) = [one for one in self.runs if one.info.run_id == run_id]
        assert len(params) + len(tags) <= 100
        for one in params:
            if run.data.params.setdefault(one.key, one.value) != one.value:
                raise self.error("Changing param values is not allowed.")
        self.history += [(one.key, one.value) for one in metrics]
        run.data.metrics |= {one.key: one.value for one in metrics}
        run.data.tags |= {one.key: one.value for one in tags}

    def set_terminated(self, run_id: str, status: str) -> None:
        (run,) = [one for one in self.runs if one.info.run_id == run_id]
        run.info.status = status


def test_mlflow_gets_one_run_a_row_however_often(
    complete: pa.Table, running: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeMlflow()
    fake.install(monkeypatch)
    ids = to_mlflow(running, "valleys")
    assert {run.info.status for run in fake.runs} == {"RUNNING"}
    assert to_mlflow(complete, "valleys") == ids
    assert len(fake.runs) == complete.num_rows
    assert {run.info.status for run in fake.runs} == {"FINISHED"}
    logged = len(fake.history)
    assert to_mlflow(complete, "valleys") == ids
    assert len(fake.history) == logged  # nothing changed
    for row, run in zip(complete.to_pylist(), fake.runs, strict=True):
        assert run.data.params["attack_settings.eps"] == "0.3"
        assert run.data.params["seed"] == str(row["seed"])
        assert run.data.metrics["flipped"] == row["flipped"]
        assert run.data.tags["state"] == "complete"
    fake.experiments["valleys"].lifecycle_stage = "deleted"
    with pytest.raises(InputError, match="'valleys' was deleted"):
        to_mlflow(complete, "valleys")
    with pytest.raises(InputError, match="MLflow refused the results: Invalid experiment name"):
        to_mlflow(complete, "")


def test_trackers_get_finite_numbers_and_rows_that_differ_only_in_a_label(with_controls: pa.Table) -> None:
    table = with_controls
    place = table.schema.get_field_index("depth")
    endless = table.set_column(place, table.schema.field(place), pa.array([-np.inf] * table.num_rows))
    rows = list(rows_of(endless))
    assert not any("depth" in row.numbers for row in rows)
    assert all("flipped" in row.numbers for row in rows)
    same = table.slice(0, 1)
    place = same.schema.get_field_index("model")
    other = same.set_column(place, same.schema.field(place), pa.array(["another"]))
    assert len({row.id for one in (table, other) for row in rows_of(one)}) == table.num_rows + 1
    with pytest.raises(InputError, match="expected a table of results"):
        list(rows_of(pa.table({"depth": [1.0]})))


def test_trackers_that_are_not_installed_are_named(
    complete: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, send in (("wandb", to_wandb), ("mlflow", to_mlflow)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=f"pip install {name}"):
            send(complete, "valleys")
