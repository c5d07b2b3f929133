"""A detector in one file: arrays as safetensors, the rest as JSON in its header, nothing that could be executed.

It is bound to the network by the fingerprint of its weights, and carries a stamp over its own bytes. A stamp tells damage,
not malice: everything read is checked against the recipe before it is believed.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

import uncannyvalley
from uncannyvalley.detect.conformal import Calibration, rows_needed
from uncannyvalley.detect.curves import Curves
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.questions import Answers, Question
from uncannyvalley.detect.recipes import LARGEST_BUDGET, Recipe
from uncannyvalley.detect.sharpness_detector import SharpnessDetector
from uncannyvalley.errors import InputError
from uncannyvalley.splitting import SplitModel, split
from uncannyvalley.storing.files import write_bytes
from uncannyvalley.storing.places import place_of
from uncannyvalley.storing.stamp import BLANK, is_intact, stamp
from uncannyvalley.zoo import fingerprint

FORMAT = 1

LARGEST_INPUT = 2**26
"""Numbers in one image beyond which a file is not believed."""

_FITTED = ("centre", "precision", "explained")
_CURVES = tuple(field.name for field in dataclasses.fields(Curves))


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelPart(_Part):
    """The network that a detector belongs to; ``name`` is what the user called it, or empty."""

    name: str
    fingerprint: str
    head: str


class QuestionPart(_Part):
    """A question, as in ``Question``."""

    name: str
    columns: dict[str, float]
    side: str
    given: list[str]
    weight: float
    limit: float | None


class RecipePart(_Part):
    """A recipe, as in ``Recipe``."""

    name: str
    columns: Annotated[list[str], Field(min_length=1)]
    questions: Annotated[list[QuestionPart], Field(min_length=1)]


class About(_Part):
    """What a file says of its detector, without any network."""

    format: int
    version: str
    model: ModelPart
    sample_shape: list[Annotated[int, Field(ge=1)]]
    fpr: Annotated[float, Field(gt=0, lt=1)]
    budget: Annotated[int, Field(ge=1, le=LARGEST_BUDGET)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    notes: list[str]
    recipe: RecipePart
    contamination: Annotated[int, Field(ge=0)]
    stamp: str


def save_detector(detector: ImageDetector, path: str | Path, *, model_name: str = "") -> None:
    """Write a fitted detector to a file, whole or not at all; ``model_name`` says how the network can be loaded again."""
    fitted = detector.fitted
    fitted.model.check_fresh()
    recipe = json.loads(json.dumps(dataclasses.asdict(fitted.recipe), default=dict))
    about = About(
        format=FORMAT,
        version=uncannyvalley.__version__,
        model=ModelPart(
            name=model_name, fingerprint=fingerprint(_network(detector.net)), head=fitted.model.head_name
        ),
        sample_shape=list(fitted.model.sample_shape),
        fpr=detector.fpr,
        budget=detector.budget,
        seed=detector.seed,
        notes=detector.notes,
        recipe=RecipePart.model_validate(recipe),
        contamination=detector.calibration.contamination,
        stamp=BLANK,
    )
    arrays = _arrays(fitted.estimator) | {
        f"reference.{name}.{key}": value
        for name, reference in fitted.columns.references.items()
        for key, value in reference.arrays().items()
    }
    content = save(arrays, metadata={"detector": about.model_dump_json()})
    write_bytes(place_of(str(path)), stamp(content))


def load_detector(path: str | Path, net: nn.Module | SplitModel) -> ImageDetector:
    """The detector of a file, for the network that it was fitted with.

    Raises InputError for a missing, damaged or foreign file, and for any other network.
    """
    content = _read(path)
    about = _about(path, content)
    _check_same_network(about, net, path)
    try:
        return _restored(about, load(content), net)
    except (ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{path} is no whole detector ({error}); fit and save it again") from error


def about_detector(path: str | Path) -> About:
    """What a file says of its detector: model, fpr, budget, recipe. No network is needed."""
    return _about(path, _read(path))


def _check_same_network(about: About, net: nn.Module | SplitModel, path: str | Path) -> None:
    found, expected = fingerprint(_network(net)), about.model.fingerprint
    if found != expected:
        name = f" ({about.model.name})" if about.model.name else ""
        raise InputError(
            f"{path} was fitted with another network{name}: weights SHA-256 {expected[:16]}…, given {found[:16]}…; "
            "its false-positive rate would mean nothing here. Fit a detector to this network"
        )


def _network(net: object) -> nn.Module:
    if isinstance(net, nn.Module):
        return net
    if not isinstance(net, SplitModel):
        raise InputError(f"the network must be a torch.nn.Module or a SplitModel, got {type(net).__name__}")
    source = net.source()
    if source is None:
        raise InputError(
            "the network of this SplitModel is gone; keep the network, or give the network itself"
        )
    return source


def _read(path: str | Path) -> bytes:
    try:
        return place_of(str(path)).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}); give the file of a detector"
        ) from error


def _about(path: str | Path, content: bytes) -> About:
    if not is_intact(content):
        raise InputError(
            f"{path} is no detector, or damaged: its stamp does not agree with it; save it again"
        )
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])["__metadata__"]["detector"]
        about = About.model_validate_json(header)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the header"
        raise InputError(f"{path} is no detector: {where}: {first['msg']}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is no detector: its header cannot be read ({error})") from error
    if about.format != FORMAT:
        raise InputError(
            f"{path} has format {about.format}, this version reads {FORMAT}; fit the detector again"
        )
    if math.prod(about.sample_shape) > LARGEST_INPUT:
        raise InputError(f"{path} is no detector: images of shape {about.sample_shape}")
    return about


def _restored(about: About, arrays: dict[str, Tensor], net: nn.Module | SplitModel) -> ImageDetector:
    questions = tuple(Question(**one.model_dump()) for one in about.recipe.questions)
    recipe = Recipe(about.recipe.name, tuple(about.recipe.columns), questions)
    detector = ImageDetector(net, fpr=about.fpr, budget=about.budget, seed=about.seed, recipe=recipe)
    detector.notes = list(about.notes)
    sample = torch.rand(8, *about.sample_shape, generator=torch.Generator().manual_seed(0))
    model = net if isinstance(net, SplitModel) else split(net, sample, about.model.head or None)
    kept: dict[str, dict[str, Tensor]] = {}
    for name, one in arrays.items():
        kind, _, rest = name.partition(".")
        if kind == "reference":
            column, _, key = rest.rpartition(".")
            kept.setdefault(column, {})[key] = one
    return detector.restored(model, kept, _estimator(arrays, about, recipe))


def _arrays(estimator: SharpnessDetector) -> dict[str, Tensor]:
    assert estimator.calibration_ is not None  # only fitted detectors are saved
    assert estimator.locations_ is not None  # image detectors know the predicted classes
    arrays = _of_curves("scores", estimator.curves_)
    arrays |= {"calibration": torch.tensor(estimator.calibration_.scores), "locations": estimator.locations_}
    for i, answers in enumerate(estimator.answers_):
        arrays |= _of_curves(f"answer{i}.tail", answers.tail)
        arrays |= {f"answer{i}.{name}": getattr(answers, name) for name in _FITTED}
    return {name: one.contiguous() for name, one in arrays.items()}


def _estimator(arrays: dict[str, Tensor], about: About, recipe: Recipe) -> SharpnessDetector:
    columns, found = len(recipe.columns), SharpnessDetector(recipe.questions, recipe.columns, about.fpr)
    found.curves_ = _to_curves("scores", arrays, columns)
    classes = arrays["locations"].shape[0]
    found.locations_ = _checked(arrays, "locations", (classes, columns))
    found.n_features_in_ = columns
    found.answers_ = []
    for i, question in enumerate(recipe.questions):
        asked = [recipe.columns.index(one) for one in question.columns]
        given = [recipe.columns.index(one) for one in question.given]
        shapes = (len(asked),), (len(asked), len(asked)), (1 + 2 * len(given),)
        fitted = {
            name: _checked(arrays, f"answer{i}.{name}", shape)
            for name, shape in zip(_FITTED, shapes, strict=True)
        }
        tail = _to_curves(f"answer{i}.tail", arrays, 1)
        found.answers_.append(Answers(question, asked, given, **fitted, tail=tail))
    scores = _checked(arrays, "calibration", (arrays["calibration"].numel(),)).numpy()
    clean = len(scores) - about.contamination
    if (scores[1:] < scores[:-1]).any() or clean < rows_needed(about.fpr):
        raise ValueError(f"{len(scores)} calibration scores are too few, or not in order")
    found.calibration_ = Calibration(scores, about.fpr, about.contamination)
    found.offset_ = -found.calibration_.threshold
    surplus = arrays.keys() - _arrays(found).keys()
    if any(not one.startswith("reference.") for one in surplus):
        raise ValueError(f"arrays that no question reads: {', '.join(sorted(surplus))}")
    return found


def _of_curves(name: str, curves: Curves) -> dict[str, Tensor]:
    return {f"{name}.{part}": getattr(curves, part) for part in _CURVES}


def _to_curves(name: str, arrays: dict[str, Tensor], count: int) -> Curves:
    knots = arrays[f"{name}.at"].shape[-1]
    if knots < 2:
        raise ValueError(f"{name} has {knots} knots")
    shapes = {"at": (count, knots), "to": (count, knots), "before": (count,), "after": (count,)}
    found = Curves(**{part: _checked(arrays, f"{name}.{part}", shapes[part]) for part in _CURVES})
    if bool((found.at.diff() < 0).any()):
        raise ValueError(f"the knots of {name} do not ascend")
    return found


def _checked(arrays: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    found = arrays[name]
    if found.dtype != torch.float64 or tuple(found.shape) != shape or not bool(found.isfinite().all()):
        raise ValueError(
            f"{name} must be finite float64 of shape {shape}, got {found.dtype} {tuple(found.shape)}"
        )
    return found
