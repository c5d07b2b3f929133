"""A table of results → Weights & Biases or MLflow: one run of theirs for each row, however often it is sent.

Their run is known by a digest of the row's key and labels. Sending a row again brings the same run up to date: a study
may be sent while it goes on.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from uncannyvalley.errors import InputError
from uncannyvalley.study.results import LABEL, NUMBER, ROLE, SETTING, STATE

ID_TAG = "uncanny.id"
"""Tag by which a row's run is found again in MLflow."""


@dataclass(frozen=True)
class Row:
    """One row as trackers take it, without what is null; of the numbers those that are finite."""

    labels: dict[str, Any]
    settings: dict[str, Any]
    attack_settings: dict[str, Any]
    state: dict[str, Any]
    numbers: dict[str, float]

    @property
    def id(self) -> str:
        """32 hex digits of a SHA-256 over the key and the labels."""
        known = json.dumps([self.settings["key"], self.labels], sort_keys=True)
        return hashlib.sha256(known.encode()).hexdigest()[:32]

    @property
    def name(self) -> str:
        """The labels, as people read them."""
        return " ".join(
            f"seed {value}" if name == "seed" else str(value) for name, value in self.labels.items()
        )


def rows_of(table: pa.Table) -> Iterator[Row]:
    """The rows of a table of ``results``; InputError for another table."""
    roles = {field.name: (field.metadata or {}).get(ROLE, b"").decode() for field in table.schema}
    if not {LABEL, SETTING, STATE, NUMBER} <= set(roles.values()):
        raise InputError("expected a table of results(study), whose columns have roles; got another table")
    for batch in table.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            yield _row(row, roles)


def _row(row: dict[str, Any], roles: dict[str, str]) -> Row:
    def part(role: str) -> dict[str, Any]:
        return {name: value for name, value in row.items() if roles[name] == role and value is not None}

    settings, numbers = part(SETTING), part(NUMBER)
    attack_settings = json.loads(settings.pop("settings"))
    finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
    return Row(part(LABEL), settings, attack_settings, part(STATE), finite)


def to_wandb(
    table: pa.Table, project: str, *, group: str | None = None, entity: str | None = None
) -> list[str]:
    """Send each row as a W&B run: settings as its config, numbers and state as its summary; returns their ids.

    Sent again, the same runs are updated. Online or offline as W&B is set up (``WANDB_MODE``). ``group`` is a name for
    the study. Raises InputError without wandb, and where W&B refuses (not logged in, no such entity).
    """
    try:
        import wandb
    except ImportError as error:
        raise InputError("sending results to W&B takes its library: pip install wandb") from error
    quiet = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True)
    ids = []
    try:
        for row in rows_of(table):
            with wandb.init(
                project=project, entity=entity, group=group, id=row.id, name=row.name, job_type="record", resume="allow",
                reinit="create_new", config=row.labels | row.settings | {"attack_settings": row.attack_settings}, allow_val_change=True, settings=quiet,
            ) as run:  # fmt: skip
                run.summary.update(row.state | row.numbers)
            ids.append(row.id)
    except wandb.Error as error:
        raise InputError(f"W&B refused the results: {error}") from error
    return ids


def to_mlflow(table: pa.Table, experiment: str, *, uri: str | None = None) -> list[str]:
    """Send each row as an MLflow run: settings as its params, numbers as metrics, state as tags; returns their ids.

    Sent again, the same runs are updated: a metric gets a new value only where the number changed. ``uri`` is the
    tracking server or store; ``MLFLOW_TRACKING_URI`` if left out. Creates the experiment where there is none.
    Raises InputError without mlflow, and where the store refuses.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise InputError("sending results to MLflow takes its library: pip install mlflow") from error
    try:
        client = MlflowClient(tracking_uri=uri)
        place = _experiment(client, experiment)
        return [_send(client, place, row) for row in rows_of(table)]
    except MlflowException as error:
        raise InputError(f"MLflow refused the results: {error}") from error


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name)
    if found.lifecycle_stage == "deleted":
        raise InputError(f"the MLflow experiment {name!r} was deleted; restore it, or choose another name")
    return found.experiment_id


def _send(client: Any, experiment: str, row: Row) -> str:
    """Create the row's run or bring it up to date; its id."""
    from mlflow.entities import Metric, Param, RunTag

    found = client.search_runs([experiment], f'tags."{ID_TAG}" = "{row.id}"', max_results=1)
    run = found[0] if found else client.create_run(experiment, tags={ID_TAG: row.id}, run_name=row.name)
    known, now = run.data, int(time.time() * 1000)
    metrics = [
        Metric(name, value, now, 0) for name, value in row.numbers.items() if known.metrics.get(name) != value
    ]
    chosen = {f"attack_settings.{name}": value for name, value in row.attack_settings.items()}
    settings = row.labels | row.settings | chosen
    params = [Param(name, str(value)) for name, value in settings.items() if name not in known.params]
    tags = [RunTag(name, str(value)) for name, value in row.state.items()]
    client.log_batch(run.info.run_id, metrics, params, tags)
    complete = row.state["state"] == "complete"
    if complete and run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id, "FINISHED")
    return run.info.run_id
