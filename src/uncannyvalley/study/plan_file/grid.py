"""A plan file → the cells of its grid: models × data × attacks × measures × seeds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import tomli_w

from uncannyvalley.adversaries import ADVERSARIES
from uncannyvalley.measures import resolve
from uncannyvalley.run.request import Request
from uncannyvalley.study.plan_file.choices import Choice, spelled_out
from uncannyvalley.study.plan_file.labels import folder_of
from uncannyvalley.study.plan_file.reading import read_content, read_text, spanned, validated
from uncannyvalley.study.plan_file.tables import ALL, OWN_MEASURES, STUDY, PlanTable

AXES = ("model", "data", "attack", "measures", "seed")

TABLE_AXES = {"models": "model", "data": "data", "attacks": "attack", "measures": "measures"}
"""Tables of a plan file → the axes that they span."""

OPTIONS = ("keep_images", "keep", "every", "batch_size", "dtype", "device", "prepare", "compile")
"""Options of a plan that hold for all runs, called as in a request."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    labels   one for each of AXES, made of letters, digits and . _ + -
    request  everything that ``uncanny record`` would be given
    controls whether noise and assist are walked beside its attack
    """

    labels: Mapping[str, str]
    request: Request
    controls: bool

    def asking(self, **options: Any) -> "Cell":
        """The same cell with other options of its request; those that are None stay as they are."""
        changes = {name: value for name, value in options.items() if value is not None}
        return replace(self, request=replace(self.request, **changes))

    @property
    def place(self) -> str:
        """Its folder in the study, with hive partitions: "model=demo/data=digits/attack=pgd/measures=all/seed=0"."""
        return folder_of(self.labels)


@dataclass(frozen=True)
class Grid:
    """A plan that was read.

    text     the file's own
    plan     its validated content, as it was written
    choices  axis ("model", "data", "attack", "measures") → the points that its tables span; paths are absolute
    """

    text: str
    plan: PlanTable
    choices: Mapping[str, tuple[Choice, ...]]

    @property
    def seeds(self) -> Sequence[int]:
        return self.plan.all_seeds

    @property
    def shard_size(self) -> int:
        """Images of a shard."""
        return self.plan.shard_size

    @property
    def controls(self) -> bool:
        """Whether noise and assist are walked beside each attack."""
        return self.plan.controls

    def __len__(self) -> int:
        """Cells of the grid."""
        return math.prod(map(len, self.choices.values())) * len(self.seeds)

    def cells(self) -> list[Cell]:
        """Every run, all of a model together, then of its data, and so on down to the seeds."""
        return list(self.iter_cells())

    def iter_cells(self) -> Iterator[Cell]:
        """The same, one after the other."""
        for model, data, attack, measures in product(*self.choices.values()):
            request = self._request(model, data, attack, measures)
            labels = dict(zip(AXES, (model.label, data.label, attack.label, measures.label), strict=False))
            for seed in self.seeds:
                yield Cell({**labels, "seed": str(seed)}, replace(request, seed=seed), self.controls)

    def _request(self, model: Choice, data: Choice, attack: Choice, measures: Choice) -> Request:
        options = {key: getattr(self.plan, key) for key in OPTIONS}
        return Request(
            **options | model.options | data.options | attack.options,
            model_arguments=model.arguments,
            attack_arguments=attack.arguments,
            measures=_measures(measures.settings["measures"], attack.settings["attack"]),
            shard_examples=self.shard_size,
        )

    def to_dict(self) -> dict[str, Any]:
        """The plan without lists and defaults: each point of each axis a table of its own, with its label as its name.

        Read again, from any folder, it spans the same cells.
        """
        given = self.plan.model_dump(include={"seeds", "shard_size", "controls", *OPTIONS}, exclude_none=True)
        return given | spelled_out(self.choices, TABLE_AXES)

    def to_toml(self) -> str:
        """``to_dict`` as the text of a plan file."""
        return tomli_w.dumps(self.to_dict())


def _measures(names: list[str], attack: str) -> list[str] | None:
    """Names as a request takes them. "all" beside a library's attack are those that its own forwards give."""
    if names == [ALL]:
        return None
    closed_form = [one.name for one in resolve(None) if attack not in ADVERSARIES or not one.needs]
    listed = [one for name in names for one in (closed_form if name == ALL else [name])]
    return list(dict.fromkeys(listed))


def read_grid(path: Path) -> Grid:
    """The grid of a plan file.

    Raises InputError for a file that can't be read, and one for all faults of its content, a line for each:
    "PLAN.toml:14: attacks[2].eps: expected a number or a fraction like 8/255, got 'big'".
    """
    return parse_grid(read_text(path), str(path), path.absolute().parent)


def parse_grid(text: str, name: str, folder: Path) -> Grid:
    """The grid of a plan's text; paths in it are looked for in ``folder``, and errors call it ``name``.

    Raises InputError for all faults of its content at once, as ``read_grid`` does.
    """
    content = read_content(text, name, 'attacks = ["pgd"]')
    context = {OWN_MEASURES: ".py" in str(content.get("models"))}
    plan = validated(PlanTable, STUDY, text, name, content, context)
    return Grid(text, plan, spanned(plan, TABLE_AXES, text, name, content, folder))
