"""A study's folder: ``plan.toml``, and a run folder for each cell under the names of what it was made of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from uncannyvalley.errors import InputError
from uncannyvalley.run.folder import RunFolder, open_run
from uncannyvalley.run.plan import PLAN_FILE, Plan
from uncannyvalley.storing.places import Place, place_of
from uncannyvalley.study.study_plan import StudyPlan


@dataclass(frozen=True)
class StudyRun:
    """One run of a study. ``labels``: model, data, attack, measures and seed, as the plan file names them."""

    labels: Mapping[str, str]
    run: RunFolder


@dataclass(frozen=True)
class Study:
    """The runs of a study, or the one run of a folder that ``uncanny record`` wrote; ``open_study`` reads one."""

    path: Place
    plan: StudyPlan | None

    @cached_property
    def runs(self) -> list[StudyRun]:
        """Every run, finished or not; InputError where a folder is missing or its plan was changed."""
        return list(self._opened())

    @property
    def key(self) -> str:
        """The content key: of the study, or of its one run."""
        return self.plan.key if self.plan else self.runs[0].run.plan.key

    def _opened(self) -> Iterator[StudyRun]:
        if self.plan is None:
            run = open_run(self.path)
            yield StudyRun(_labels_of(run.plan), run)
            return
        for place, key in self.plan.cells.items():
            if not (self.path / place).is_dir():
                raise InputError(f"{self.path / place} is missing; the same uncanny run makes it")
            run = open_run(self.path / place)
            if run.plan.key != key:
                raise InputError(f"{run.path} holds another run than the study was planned with")
            yield StudyRun(dict(part.split("=", 1) for part in place.split("/")), run)


def _labels_of(plan: Plan) -> dict[str, str]:
    """What a run that no plan file names is made of."""
    return {
        "model": plan.model.spec,
        "data": plan.data.spec,
        "attack": plan.attack.name,
        "measures": "recorded",
        "seed": str(plan.recording.seed),
    }


def open_study(path: "str | Place") -> Study:
    """The study, or the single run, in a folder; InputError where there is none."""
    folder = place_of(path)
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; give the folder that uncanny run --out wrote")
    return Study(folder, StudyPlan.read(folder / PLAN_FILE))
