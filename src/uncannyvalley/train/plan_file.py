"""The plan file of trainings: TOML in which lists span a grid → its cells; every mistake with its line."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import Field, model_validator

from uncannyvalley.errors import InputError
from uncannyvalley.study.plan_file.choices import Choice, spelled_out
from uncannyvalley.study.plan_file.faults import Sheet
from uncannyvalley.study.plan_file.labels import folder_of
from uncannyvalley.study.plan_file.reading import read_content, read_text, spanned, validated
from uncannyvalley.study.plan_file.tables import SeededTable, SeedRange, tables_of
from uncannyvalley.study.plan_file.values import (
    Amount,
    Arguments,
    Count,
    Label,
    Length,
    Misfits,
    Norm,
    Several,
    Table,
    Text,
    known,
)
from uncannyvalley.train.objectives import named
from uncannyvalley.train.preparing import PRECISIONS
from uncannyvalley.train.recipe import OPTIMIZERS, SCHEDULES, SELECTIONS
from uncannyvalley.train.request import AUGMENTING, SETTINGS, TrainingRequest, recipe_of
from uncannyvalley.zoo.fitted import HEADS

AXES = ("model", "data", "objective", "recipe", "seed")

TABLE_AXES = {"models": "model", "data": "data", "objectives": "objective", "recipes": "recipe"}
"""Tables of a plan file → the axes that they span."""


class ModelTable(Table):
    """``[[models]]``: a network and its head, as ``uncanny train`` takes them."""

    name: Label | None = None
    model: Several[Text]
    weights: Several[Text] | None = None
    arguments: Arguments = Field(default_factory=dict)
    head: Several[Annotated[str, known("head", HEADS)]] | None = None
    head_name: Several[Text] | None = None
    scale: Several[Length] | None = None


class DataTable(Table):
    """``[[data]]``: images to train on, and those to select by and to judge on."""

    name: Label | None = None
    data: Several[Text]
    limit: Several[Count] | None = None
    validation: Several[Text] | None = None
    test: Several[Text] | None = None


class ObjectiveTable(Table):
    """``[[objectives]]``: what training descends."""

    name: Label | None = None
    objective: Several[Text]
    arguments: Arguments = Field(default_factory=dict)

    @model_validator(mode="after")
    def _can_be_descended(self) -> "ObjectiveTable":
        """Each combination makes an objective."""
        found: dict[str, tuple[str | int, ...]] = {}
        for one in self.combinations():
            name = one.pop("objective")
            texts = {key.removeprefix("arguments."): text for key, text in one.items()}
            try:
                named(name, texts)
            except InputError as error:
                found.setdefault(str(error), self._place(str(error), name, texts))
        if found:
            raise Misfits([(place, message) for message, place in found.items()])
        return self

    def _place(self, message: str, name: str, texts: Mapping[str, str]) -> tuple[str | int, ...]:
        """The argument that a message speaks of, by its name, its value or the word; else the objective."""
        speaks: tuple[Callable[[str], bool], ...] = (
            lambda argument: repr(argument) in message,
            lambda argument: repr(texts[argument]) in message,
            lambda argument: re.search(rf"\b{re.escape(argument)}\b", message) is not None,
        )
        for one in speaks:
            for argument in filter(one, texts):
                return ("arguments", argument, self.arguments[argument].index(texts[argument]))
        return ("objective", self.objective.index(name))


class RecipeTable(Table):
    """``[[recipes]]``: how training descends it."""

    name: Label | None = None
    epochs: Several[Count] | None = None
    batch_size: Several[Count] | None = None
    optimizer: Several[Annotated[str, known("optimizer", OPTIMIZERS)]] | None = None
    learning_rate: Several[Length] | None = None
    momentum: Several[Amount] | None = None
    weight_decay: Several[Amount] | None = None
    schedule: Several[Annotated[str, known("schedule", SCHEDULES)]] | None = None
    clip: Several[Length] | None = None
    crop: Several[Annotated[int, Field(ge=0)]] | None = None
    mirror: Several[bool] | None = None
    validation_share: Several[Amount] | None = None
    selection: Several[Annotated[str, known("selection", SELECTIONS)]] | None = None
    evaluation_norm: Several[Norm] | None = None
    evaluation_eps: Several[Amount] | None = None
    evaluation_steps: Several[Count] | None = None
    evaluation_random_start: Several[bool] | None = None
    evaluation_examples: Several[Count] | None = None
    evaluate_every: Several[Count] | None = None

    @model_validator(mode="after")
    def _can_be_followed(self) -> "RecipeTable":
        """Each combination makes a recipe."""
        fields = {field: key for key, field in (SETTINGS | AUGMENTING).items()}
        found: dict[str, tuple[str | int, ...]] = {}
        for one in self.combinations():
            try:
                recipe_of(TrainingRequest(settings=one), named("erm"))
            except InputError as error:
                words = re.findall(r"\w+", str(error))
                keys = [fields.get(word, word) for word in words]
                found.setdefault(str(error), next(((key,) for key in keys if key in one), ()))
        if found:
            raise Misfits([(place, message) for message, place in found.items()])
        return self


class PlanTable(SeededTable):
    """The plan file of trainings."""

    precision: Annotated[str, known("precision", PRECISIONS)] = "32-true"
    models: Annotated[list[ModelTable], Field(min_length=1), tables_of("model")] = Field(
        default_factory=lambda: [ModelTable(model=[TrainingRequest.model])]
    )
    data: Annotated[list[DataTable], Field(min_length=1), tables_of("data")] = Field(
        default_factory=lambda: [DataTable(data=[TrainingRequest.data])]
    )
    objectives: Annotated[list[ObjectiveTable], Field(min_length=1), tables_of("objective")] = Field(
        default_factory=lambda: [ObjectiveTable(objective=[TrainingRequest.objective])]
    )
    recipes: Annotated[list[RecipeTable], Field(min_length=1)] = Field(
        default_factory=lambda: [RecipeTable(name="default")]
    )


TRAININGS = Sheet(
    PlanTable,
    {
        "models": ModelTable, "data": DataTable, "objectives": ObjectiveTable, "recipes": RecipeTable, "seeds": SeedRange,
    },
    {
        "model": 'name one, as model = "family:small-cnn" or model = "my_model.py:build"',
        "data": 'name them, as data = "digits:train" or data = "parquet:images.parquet"',
        "objective": 'name one, as objective = "erm"',
        "count": "say how many, as {first = 0, count = 5}",
    },
)  # fmt: skip


@dataclass(frozen=True)
class TrainingCell:
    """One training of a plan. ``labels``: one for each of AXES."""

    labels: Mapping[str, str]
    request: TrainingRequest

    @property
    def place(self) -> str:
        """Its folder among those of the plan, with hive partitions."""
        return folder_of(self.labels)

    @property
    def but_for_seed(self) -> str:
        """``place`` without the seed: cells that share it take the same network, images and time."""
        return folder_of({axis: label for axis, label in self.labels.items() if axis != "seed"})


@dataclass(frozen=True)
class TrainingGrid:
    """A plan that was read: its text, its validated content, and axis → points; paths are absolute."""

    text: str
    plan: PlanTable
    choices: Mapping[str, tuple[Choice, ...]]

    def cells(self) -> list[TrainingCell]:
        """Every training, all of a model together, then of its data, and so on down to the seeds."""
        return list(self._cells())

    def _cells(self) -> Iterator[TrainingCell]:
        for points in product(*self.choices.values()):
            labels = {axis: point.label for axis, point in zip(self.choices, points, strict=True)}
            for seed in self.plan.all_seeds:
                yield TrainingCell({**labels, "seed": str(seed)}, self._request(points, seed))

    def _request(self, points: Sequence[Choice], seed: int) -> TrainingRequest:
        model, data, objective, recipe = points
        return TrainingRequest(
            **model.options | data.options | objective.options, model_arguments=model.arguments,
            objective_arguments=objective.arguments, settings=recipe.options, seed=seed, precision=self.plan.precision,
        )  # fmt: skip

    def to_toml(self) -> str:
        """The plan without lists and defaults, each point of an axis a table with its label as its name.

        Read again, from any folder, it spans the same cells.
        """
        given: dict[str, Any] = self.plan.model_dump(include={"seeds", "precision"})
        return tomli_w.dumps(given | spelled_out(self.choices, TABLE_AXES))


def read_trainings(path: Path) -> TrainingGrid:
    """The grid of a plan file.

    Raises InputError for a file that can't be read, and one for all faults of its content, a line for each.
    """
    return parse_trainings(read_text(path), str(path), path.absolute().parent)


def parse_trainings(text: str, name: str, folder: Path) -> TrainingGrid:
    """The grid of a plan's text; paths in it are looked for in ``folder``, and errors call it ``name``."""
    content = read_content(text, name, 'objectives = ["erm"]')
    plan = validated(PlanTable, TRAININGS, text, name, content)
    return TrainingGrid(text, plan, spanned(plan, TABLE_AXES, text, name, content, folder))
