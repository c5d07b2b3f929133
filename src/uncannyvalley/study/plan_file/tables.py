"""The tables of a plan file, and what may stand in them."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from uncannyvalley.adversaries import ADVERSARIES
from uncannyvalley.measures import available
from uncannyvalley.run.plan import SHARD_EXAMPLES
from uncannyvalley.run.request import Request
from uncannyvalley.study.plan_file.attacks import AttackTable
from uncannyvalley.study.plan_file.faults import SEED_TAGS, Sheet
from uncannyvalley.study.plan_file.values import (
    Arguments,
    Count,
    Dtype,
    Keep,
    Label,
    Misfits,
    One,
    Seed,
    Several,
    Table,
    Text,
    unmeasurable,
)

ALL = "all"
"""Stands for every closed-form measure."""

OWN_MEASURES = "own measures"
"""In the context of a validation: whether a model's Python file may register measures when it is run."""

MOST_SEEDS = 1_000_000


class ModelTable(Table):
    """``[[models]]``: a network, as ``uncanny record`` takes it."""

    name: Label | None = None
    model: Several[Text]
    weights: Several[Text] | None = None
    arguments: Arguments = Field(default_factory=dict)
    head: Several[Text] | None = None


class DataTable(Table):
    """``[[data]]``: images."""

    name: Label | None = None
    data: Several[Text]
    limit: Several[Count] | None = None


class MeasuresTable(Table):
    """``[[measures]]``: names, NAME@LAYER, and "all" for every closed-form measure."""

    name: Label | None = None
    measures: Annotated[
        list[Text], Field(min_length=1), BeforeValidator(lambda one: [one] if isinstance(one, str) else one)
    ]

    @field_validator("measures")
    @classmethod
    def _can_be_measured(cls, measures: list[str], info: Any) -> list[str]:
        may_be_own = not info.context or info.context[OWN_MEASURES]
        names = None if may_be_own else [ALL, *available(), "NAME@LAYER"]
        whys = [unmeasurable(name, names) for name in measures]
        if any(whys):
            raise Misfits([((position,), why) for position, why in enumerate(whys) if why])
        return measures

    def values(self) -> dict[str, list[Any]]:
        return {"measures": One([list(dict.fromkeys(self.measures))])}  # a set is one value


class SeedRange(Table):
    """``{first = 0, count = 10000}``."""

    first: Seed = 0
    count: Annotated[int, Field(ge=1, le=MOST_SEEDS)]


def tables_of(main: str) -> BeforeValidator:
    """Names alone stand for tables with nothing else in them."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            if main == "measures" and value and all(isinstance(one, str) for one in value):
                return [{main: value}]
            return [{main: one} if isinstance(one, str) else one for one in value]
        return value

    return BeforeValidator(expand)


Seeds = Annotated[
    Annotated[list[Seed], Field(min_length=1), Tag(SEED_TAGS[0])] | Annotated[SeedRange, Tag(SEED_TAGS[1])],
    Discriminator(lambda value: SEED_TAGS[isinstance(value, (dict, SeedRange))]),
]


class SeededTable(Table):
    """A whole plan file of any kind: one of its axes are seeds."""

    seeds: Seeds = Field(default_factory=lambda: [0])

    @field_validator("seeds")
    @classmethod
    def _differ(cls, seeds: list[int] | SeedRange) -> list[int] | SeedRange:
        if isinstance(seeds, list) and len(set(seeds)) < len(seeds):
            first = {seed: place for place, seed in reversed(list(enumerate(seeds)))}
            raise Misfits(
                [
                    ((place,), f"seed {seed} is there twice")
                    for place, seed in enumerate(seeds)
                    if first[seed] < place
                ]
            )
        return seeds

    @property
    def all_seeds(self) -> Sequence[int]:
        given = self.seeds
        return range(given.first, given.first + given.count) if isinstance(given, SeedRange) else given


class PlanTable(SeededTable):
    """The plan file of a study. Options that are not axes hold for all runs."""

    shard_size: Count = SHARD_EXAMPLES
    controls: bool = True
    keep_images: Annotated[int, Field(ge=0)] = Request.keep_images
    keep: Keep | None = None
    every: Count = 1
    batch_size: Count | None = None
    dtype: Dtype | None = None
    device: Text = "auto"
    prepare: bool = True
    compile: bool = False
    models: Annotated[list[ModelTable], Field(min_length=1), tables_of("model")] = Field(
        default_factory=lambda: [ModelTable(model=["demo"])]
    )
    data: Annotated[list[DataTable], Field(min_length=1), tables_of("data")] = Field(
        default_factory=lambda: [DataTable(data=["digits"])]
    )
    attacks: Annotated[list[AttackTable], Field(min_length=1), tables_of("attack")] = Field(
        default_factory=lambda: [AttackTable(attack=["pgd"])]
    )
    measures: Annotated[list[MeasuresTable], Field(min_length=1), tables_of("measures")] = Field(
        default_factory=lambda: [MeasuresTable(measures=[ALL])]
    )

    @model_validator(mode="after")
    def _go_with_all_attacks(self) -> "PlanTable":
        """Options for all runs that attacks of libraries can't have."""
        library = [attack for table in self.attacks for attack in table.attack if attack in ADVERSARIES]
        given = [key for key, nothing in (("every", 1), ("keep", None)) if getattr(self, key) != nothing]
        if library and given:
            why = f"does not go with {library[0]}, whose path is its library's"
            raise Misfits(
                [((key,), f"{key} {why}; move it into the [[attacks]] that shall have it") for key in given]
            )
        return self


STUDY = Sheet(
    PlanTable,
    {
        "models": ModelTable, "data": DataTable, "attacks": AttackTable, "measures": MeasuresTable, "seeds": SeedRange,
    },
    {
        "model": 'name one, as model = "demo" or model = "my_model.py:build"',
        "data": 'name them, as data = "digits" or data = "parquet:images.parquet"',
        "attack": 'name one, as attack = "pgd"',
        "measures": 'list them, as measures = ["loss", "margin"]',
        "count": "say how many, as {first = 0, count = 100}",
    },
)  # fmt: skip
