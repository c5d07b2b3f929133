"""A training's folder → its part of the page, from its plan, its log and its result alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uncannyvalley.errors import InputError
from uncannyvalley.report.detectors.section import ResultTable
from uncannyvalley.report.pages.run_words import attack_words
from uncannyvalley.report.trainings.training import TrainingPage, training_page
from uncannyvalley.storing.places import Place
from uncannyvalley.train.history import LOG_FILE, Row, read_log, selected_row
from uncannyvalley.train.plan import PLAN_FILE, read_plan

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class StoredTraining:
    """A finished training as its folder has it; attack: of the looks, in words, "" for none."""

    plan: Mapping[str, Any]
    history: Sequence[Row]

    @property
    def title(self) -> str:
        """Network, objective and seed."""
        origin = self.plan.get("about", {}).get("origin", {})
        head = " with a cosine head" if origin.get("head") == "cosine" else ""
        network = origin.get("spec") or "A network made in Python"
        return f"{network}{head}: {self.plan['objective']['name']}, seed {self.plan['recipe']['seed']}"

    @property
    def attack(self) -> str:
        return attack_words(self.plan["recipe"])


def read_training(folder: Place) -> StoredTraining:
    """The training in a folder. InputError where it is unfinished, damaged or something else."""
    plan = read_plan(folder / PLAN_FILE)
    epochs = plan["recipe"]["epochs"]
    history = read_log(folder / LOG_FILE) if (folder / LOG_FILE).exists() else []
    if len(history) < epochs:
        raise InputError(
            f"{folder} is an unfinished training ({len(history)} of {epochs} epochs); the same uncanny train goes on with it"
        )
    return StoredTraining(plan, history)


def load_training(folder: Place) -> TrainingPage:
    """What the page shows of the training in a folder; errors as of ``read_training``."""
    stored = read_training(folder)
    results = _results(folder, selected_row(stored.history), stored.attack)
    return training_page(
        stored.title, stored.history, attack=stored.attack, results=results, provenance=_provenance(stored.plan), command=""
    )  # fmt: skip


def _results(folder: Place, best: Row, attack: str) -> list[ResultTable]:
    """Accuracies on the images that were judged; none where the training left no result."""
    place = folder / RESULT_FILE
    if not place.exists():
        return []
    try:
        entries = json.loads(place.read_bytes())
        judged = [one for name, one in entries.items() if name != "identity"]
        rows = [
            [one["name"], str(one["images"]), _percent(one["clean"]), _percent(one["robust"])]
            for one in judged
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{place} cannot be read ({error}); the same uncanny train writes it again"
        ) from error
    note = (
        f"Attack: {attack}. Robust are images that are right as they are and at every iterate."
        if attack
        else ""
    )
    columns = 4 if attack else 3
    header = ["", "images", "clean", "under the attack"]
    return [
        ResultTable(
            f"The network of epoch {best['epoch']}", header[:columns], [row[:columns] for row in rows], note
        )
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _provenance(plan: Mapping[str, Any]) -> dict[str, str]:
    """The sections of the plan, a line each."""
    facts = {"key of the training": plan["key"], "uncannyvalley": plan.get("version", "")}
    for name, section in plan.items():
        if isinstance(section, Mapping):
            facts[name] = ", ".join(
                f"{key} {value}" for key, value in section.items() if value not in ("", {}, [])
            )
    return {name: str(text) for name, text in facts.items() if text}
