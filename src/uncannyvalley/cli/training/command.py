"""``uncanny train``: one network by options, or all of a plan file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import aside
from uncannyvalley.cli.training import choices
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from uncannyvalley.train.plan_file import TrainingCell

NOT_IN_PLANS = (
    "plan",
    "out",
    "device",
    "devices",
    "logger",
    "part",
    "dry_run",
    "overwrite",
    "json",
    "checkpoint_every",
)
"""Options that go with a plan file too: they decide no number, but where and how much at once."""

INTERRUPTED = "\nstopped. The last checkpoint is kept; the same command goes on from there"


def train(
    context: typer.Context,
    out: choices.Out,
    plan: choices.PlanFile = None,
    model: choices.Model = None,
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    weights: choices.Weights = None,
    head: choices.Head = None,
    head_name: choices.HeadName = None,
    scale: choices.Scale = None,
    data: choices.Data = None,
    limit: options.Limit = None,
    validation: choices.Validation = None,
    validation_share: choices.ValidationShare = None,
    test: choices.Test = None,
    objective: choices.Objective = None,
    objective_arg: choices.ObjectiveArg = [],  # noqa: B006
    epochs: choices.Epochs = None,
    batch_size: choices.BatchSize = None,
    optimizer: choices.Optimizer = None,
    learning_rate: choices.LearningRate = None,
    momentum: choices.Momentum = None,
    weight_decay: choices.WeightDecay = None,
    schedule: choices.Schedule = None,
    clip: choices.Clip = None,
    crop: choices.Crop = None,
    mirror: choices.Mirror = False,
    selection: choices.Selection = None,
    evaluation_norm: choices.EvaluationNorm = None,
    evaluation_eps: choices.EvaluationEps = None,
    evaluation_steps: choices.EvaluationSteps = None,
    evaluation_examples: choices.EvaluationExamples = None,
    evaluate_every: choices.EvaluateEvery = None,
    checkpoint_every: choices.CheckpointEvery = None,
    seed: choices.Seed = None,
    device: choices.Device = "auto",
    devices: choices.Devices = 1,
    precision: choices.Precision = None,
    logger: choices.Loggers = [],  # noqa: B006
    part: choices.Part = "1/1",
    dry_run: choices.DryRun = False,
    overwrite: choices.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Train a network, adversarially or for flatness if asked, in a folder that resumes and is a --model everywhere.

    Start with: uncanny train --out runs/first
    """
    from uncannyvalley.cli.training.carrying import carry_out, list_cells
    from uncannyvalley.study.part import Part

    given = {name: value for name, value in context.params.items() if _is_given(value)}
    share = Part.read(part)
    if plan is None and share.count > 1:
        raise InputError("--part is one of several trainings of a plan; give a plan file with it")
    cells, grid = ([_cell(given)], "") if plan is None else _cells(plan, given)
    mine = [cell for number, cell in enumerate(cells) if share.has(number)]
    try:
        if dry_run:
            list_cells(mine, json)
        else:
            carry_out(mine, out, grid, alone=len(cells) == 1, overwrite=overwrite, json=json)
    except KeyboardInterrupt:
        aside.print(INTERRUPTED)
        raise typer.Exit(130) from None


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value != []


def _cell(given: dict[str, Any]) -> "TrainingCell":
    """The one training that the options ask for."""
    from uncannyvalley.train.plan_file import TrainingCell
    from uncannyvalley.train.request import AUGMENTING, SETTINGS, TrainingRequest
    from uncannyvalley.typed_arguments import ratio

    settings = {name: given[name] for name in (*SETTINGS, *AUGMENTING) if name in given}
    if "evaluation_eps" in settings:
        settings["evaluation_eps"] = ratio(settings["evaluation_eps"])
    named = (
        "model",
        "weights",
        "head",
        "head_name",
        "scale",
        "data",
        "limit",
        "validation",
        "test",
        "objective",
    )
    asked = {name: given[name] for name in (*named, "seed", "precision") if name in given}
    return TrainingCell({}, TrainingRequest(
        **asked, settings=settings, model_arguments=options.pairs(given.get("model_arg", [])),
        objective_arguments=options.pairs(given.get("objective_arg", []), "--objective-arg"), **_machine(given),
    ))  # fmt: skip


def _cells(plan: Path, given: dict[str, Any]) -> "tuple[list[TrainingCell], str]":
    """The trainings of a plan file, and the plan spelled out."""
    from dataclasses import replace

    from uncannyvalley.train.plan_file import read_trainings

    if extra := [name for name in given if name not in NOT_IN_PLANS]:
        words = ", ".join("--" + name.replace("_", "-") for name in extra)
        raise InputError(
            f"a plan file says what is trained: write {words} into {plan}, or leave the plan out"
        )
    keeping = {name: given[name] for name in ("checkpoint_every",) if name in given}
    grid = read_trainings(plan)
    cells = [
        replace(
            cell,
            request=replace(cell.request, settings={**cell.request.settings, **keeping}, **_machine(given)),
        )
        for cell in grid.cells()
    ]
    return cells, grid.to_toml()


def _machine(given: dict[str, Any]) -> dict[str, Any]:
    """What says where and on how many devices."""
    return {"device": given["device"], "devices": given["devices"], "loggers": tuple(given.get("logger", ()))}
