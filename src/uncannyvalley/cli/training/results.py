"""What came of a training: accuracies, files, and the words that name its network from now on."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uncannyvalley.cli.training.tables import result_table

if TYPE_CHECKING:
    from uncannyvalley.storing.places import Place
    from uncannyvalley.train.evaluation import Accuracies
    from uncannyvalley.train.fitted import Fitted
    from uncannyvalley.train.plan_file import TrainingCell
    from uncannyvalley.train.request import Training

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class Judged:
    """Accuracies on ``images`` images called ``name``; None where nothing was attacked."""

    name: str
    images: int
    clean: float
    robust: float | None


@dataclass(frozen=True)
class Result:
    """One finished training.

    labels       of its cell; empty without a plan
    attack       of the looks, in words; "" for none
    judged       on validation images and on test images
    model_words  what ``--model FOLDER`` needs besides, where a Python file made the network
    judged_on    images that it was not trained on
    """

    labels: Mapping[str, str]
    folder: str
    key: str
    is_new: bool
    epochs: int
    best: Mapping[str, Any]
    seconds: float
    attack: str
    judged: tuple[Judged, ...]
    files: Mapping[str, str]
    model_words: str
    judged_on: str

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        labels = {"labels": dict(self.labels)} if self.labels else {}
        return {
            **labels, "folder": self.folder, "key": self.key, "trained": self.is_new, "epochs": self.epochs,
            "selected": dict(self.best), "attack": self.attack or None, "files": dict(self.files),
            "accuracies": {one.name: {"images": one.images, "clean": one.clean, "robust": one.robust} for one in self.judged},
        }  # fmt: skip


def result_of(
    cell: "TrainingCell", training: "Training", fitted: "Fitted", *, is_new: bool, writes: bool
) -> Result:
    """Judge the network on the test images, and write result, figure and page where they are not there as they would be."""
    from uncannyvalley.report.pages.run_words import attack_words
    from uncannyvalley.zoo.fitted import NETWORK_FILE

    assert fitted.path is not None
    place, request = fitted.path, training.request
    judged = _judged(training, fitted, place, is_new)
    result = Result(
        cell.labels, str(place), fitted.key, is_new, training.recipe.epochs, fitted.best, fitted.seconds, attack_words(training.recipe.settings),
        judged, {"network": str(place / NETWORK_FILE), "log": str(place / "log.csv")}, _model_words(training),
        request.test or request.validation or ("digits" if request.data == "digits:train" else request.data),
    )  # fmt: skip
    if not writes:
        return result
    return _with_files(result, training, fitted, place)


def _judged(training: "Training", fitted: "Fitted", place: "Place", is_new: bool) -> tuple[Judged, ...]:
    found = []
    best = fitted.best
    if best["clean_accuracy"] is not None:
        found.append(
            Judged("validation", training.looked_at, best["clean_accuracy"], best["robust_accuracy"])
        )
    if training.test is not None:
        known = _stored(training, fitted, place) if not is_new else None
        tested = known or training.tested(fitted.network)
        assert tested is not None
        found.append(Judged("test", len(training.test), tested.clean, tested.robust))
    return tuple(found)


def _identity(training: "Training", fitted: "Fitted") -> dict[str, Any]:
    """What decides the accuracies on the test images."""
    images = None if training.test is None else training.test.fingerprint
    return {"key": fitted.key, "test": images}


def _stored(training: "Training", fitted: "Fitted", place: "Place") -> "Accuracies | None":
    """The accuracies on the test images that an earlier call left."""
    import json

    from uncannyvalley.train.evaluation import Accuracies

    try:
        entries = json.loads((place / RESULT_FILE).read_bytes())
        if entries["identity"] == _identity(training, fitted):
            return Accuracies(entries["test"]["clean"], entries["test"]["robust"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _with_files(result: Result, training: "Training", fitted: "Fitted", place: "Place") -> Result:
    """Write result.json, and figure and page where the training is new or they are missing."""
    import json
    from dataclasses import asdict, replace

    from uncannyvalley.report.trainings.training import FIGURE_FILE, PAGE_FILE, write_training
    from uncannyvalley.storing.files import write_text

    entries = {"identity": _identity(training, fitted), **{one.name: asdict(one) for one in result.judged}}
    text = json.dumps(entries, indent=1) + "\n"
    changed = not (place / RESULT_FILE).exists() or (place / RESULT_FILE).read_bytes() != text.encode()
    if changed:
        write_text(place / RESULT_FILE, text)
    files = {"figure": place / FIGURE_FILE, "report": place / PAGE_FILE}
    if result.is_new or changed or not all(one.exists() for one in files.values()):
        write_training(
            place, _title(training), fitted.history, attack=result.attack, results=result_table(result),
            provenance=_provenance(training, fitted), command=["uncanny", *sys.argv[1:]],
        )  # fmt: skip
    return replace(result, files=dict(result.files) | {name: str(one) for name, one in files.items()})


def _title(training: "Training") -> str:
    request = training.request
    head = " with a cosine head" if request.head == "cosine" else ""
    return f"{request.model}{head} on {request.data}: {training.objective.name}, seed {request.seed}"


def _provenance(training: "Training", fitted: "Fitted") -> dict[str, str]:
    import torch

    from uncannyvalley import __version__

    request, objective = training.request, training.objective
    settings = {name: value for name, value in training.recipe.settings.items() if value is not None}
    return {
        "key": fitted.key,
        "model": shlex.join(
            [request.model, *(f"{name}={text}" for name, text in training.origin.arguments.items())]
        ),
        "weights to begin with": request.weights or "none",
        "head": f"{request.head} ({training.head_name})",
        "images": f"{request.data}, {len(training.images)} images, {training.images.fingerprint[:12]}",
        "objective": f"{objective.name} {dict(objective.settings)}",
        "passes of a step": f"{objective.cost.forwards:g} forwards, {objective.cost.backwards:g} backwards",
        "recipe": ", ".join(f"{name} {value}" for name, value in settings.items()),
        "precision": request.precision,
        "seconds": f"{fitted.seconds:.1f}",
        "versions": f"uncannyvalley {__version__}, torch {torch.__version__}",
    }


def _model_words(training: "Training") -> str:
    """The Python file of a network is named again wherever it is loaded."""
    from uncannyvalley import zoo

    spec = training.origin.spec
    return f" --model-arg {shlex.quote(f'file={spec}')}" if zoo.runs_code(spec, {}) else ""
