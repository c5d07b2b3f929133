"""What ``uncanny train`` is given, by names → the network, the images, the objective and the recipe, and their training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from uncannyvalley import data, zoo
from uncannyvalley.checks import check_count, check_labels
from uncannyvalley.data import Images
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.find_head import find_head
from uncannyvalley.run.named_attack import EPS
from uncannyvalley.storing.places import Place
from uncannyvalley.train.augmentation import Augmentation
from uncannyvalley.train.batches import held_out_count
from uncannyvalley.train.evaluation import Accuracies, evaluate
from uncannyvalley.train.fitted import Fitted, Progress
from uncannyvalley.train.fitting import fit
from uncannyvalley.train.objectives import Objective, named
from uncannyvalley.train.preparing import PRECISIONS
from uncannyvalley.train.recipe import Recipe
from uncannyvalley.zoo.family_models import families, settings_of
from uncannyvalley.zoo.fitted import HEADS, Origin, origin_of
from uncannyvalley.zoo.heads import COSINE_SCALE, with_cosine_head

DEVICES = ("auto", "cpu", "cuda")

SETTINGS = {
    "epochs": "epochs", "batch_size": "batch_size", "optimizer": "optimizer", "learning_rate": "learning_rate",
    "momentum": "momentum", "weight_decay": "weight_decay", "schedule": "schedule", "clip": "clip",
    "validation_share": "validation_share", "selection": "selection",
    "evaluation_norm": "norm", "evaluation_eps": "eps", "evaluation_steps": "attack_steps",
    "evaluation_random_start": "random_start", "evaluation_examples": "evaluation_examples",
    "evaluate_every": "evaluate_every", "checkpoint_every": "checkpoint_every",
}  # fmt: skip
"""What the recipe's settings are called on the command line and in plans → fields of Recipe."""

AUGMENTING = {"crop": "pad", "mirror": "mirror"}
"""The same for the augmentation."""


@dataclass(frozen=True)
class TrainingRequest:
    """One training, as ``uncanny train`` takes it; fields are its options, those of the recipe under ``settings``.

    head        "linear", as the network comes, or "cosine", a new head in place of the linear one
    head_name   name of the linear head; None: found by itself
    scale       of a cosine head, in nats
    validation  images to select by; None: a share of the training images
    test        images that the fitted network is judged on at the end
    settings    those of SETTINGS and AUGMENTING that were given
    """

    model: str = "family:small-cnn"
    model_arguments: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None
    head: str = "linear"
    head_name: str | None = None
    scale: float | None = None
    data: str = "digits:train"
    limit: int | None = None
    validation: str | None = None
    test: str | None = None
    objective: str = "erm"
    objective_arguments: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    loggers: Sequence[str] = ()


@dataclass(frozen=True)
class Training:
    """A request made good: everything that ``fit`` takes, checked. ``head_name``: of the head to train, in ``net``."""

    request: TrainingRequest
    net: nn.Module
    head_name: str
    origin: Origin
    images: Images
    validation: Images | None
    test: Images | None
    objective: Objective
    recipe: Recipe

    def fit(
        self, out: "str | Place | None", *, overwrite: bool = False, progress: Progress | None = None
    ) -> Fitted:
        """Train, or go on with what lies in ``out``."""
        asked = self.request
        return fit(
            self.net, self.images, None, self.objective, self.recipe, head=self.head_name,
            validation=self.validation, out=out, origin=self.origin, accelerator=asked.device, devices=asked.devices,
            precision=asked.precision, loggers=asked.loggers, overwrite=overwrite, progress=progress,
        )  # fmt: skip

    @property
    def looked_at(self) -> int:
        """How many validation images each look is at."""
        available = self._held_out if self.validation is None else len(self.validation)
        return min(available, self.recipe.evaluation_examples)

    @property
    def steps(self) -> int:
        """Steps in all."""
        trained_on = len(self.images) - (self._held_out if self.validation is None else 0)
        return self.recipe.epochs * (trained_on // self.recipe.batch_size)

    @property
    def _held_out(self) -> int:
        return held_out_count(len(self.images), self.recipe.validation_share)

    def tested(self, net: nn.Module) -> Accuracies | None:
        """Accuracies of the fitted network on the test images, under the attack of validation; None without such images."""
        return None if self.test is None else evaluate(net, self.test, self.recipe)


def recipe_of(request: TrainingRequest, objective: Objective) -> Recipe:
    """The recipe asked for.

    The attack at validation is, where it was not given, of the objective's own ball, or of the radius that
    ``uncanny record`` has by default; ``evaluation_eps`` 0 is for none. The network is selected by robust accuracy where the
    objective is adversarial, else by clean accuracy. Raises InputError for unknown settings and values that cannot be used.
    """
    for name in request.settings:
        if name not in SETTINGS and name not in AUGMENTING:
            raise unknown_name("training setting", name, [*SETTINGS, *AUGMENTING])
    given = {SETTINGS[name]: value for name, value in request.settings.items() if name in SETTINGS}
    augmenting = {AUGMENTING[name]: value for name, value in request.settings.items() if name in AUGMENTING}
    ball = objective.settings
    norm = given.setdefault("norm", ball.get("norm", "linf"))
    own = ball["eps"] if ball.get("norm") == norm and "eps" in ball else EPS.get(norm)
    given["eps"] = given.get("eps", own) or None
    if "selection" not in given and "eps" not in ball and _can_be_selected(request):
        given["selection"] = "clean"
    return Recipe(**given, seed=request.seed, augmentation=Augmentation(**augmenting))


def _can_be_selected(request: TrainingRequest) -> bool:
    return request.validation is not None or request.settings.get("validation_share", 1) > 0


def prepare(request: TrainingRequest, *, load: Callable[[str], Images] = data.load) -> Training:
    """Everything that a training needs, loaded and checked; ``load`` reads images by name.

    Raises InputError for whatever the request asks for and cannot have.
    """
    _check(request)
    objective = named(request.objective, request.objective_arguments)
    recipe = recipe_of(request, objective)
    if request.limit is not None:
        check_count("limit", request.limit, 1)
    images = load(request.data).first(request.limit)
    arguments = _arguments(request, images)
    net = zoo.load(request.model, arguments, weights=request.weights, seed=request.seed).eval()
    if PRECISIONS.get(request.precision) == torch.float64:
        net = net.double()
    net, head_name, classes = _with_head(request, net, images)
    origin = origin_of(request.model, arguments, request.head, head_name)
    if not any(one.requires_grad for one in net.parameters()):
        net.requires_grad_(True)  # networks that were loaded to be looked at come frozen as a whole
    others = {name: getattr(request, name) for name in ("validation", "test")}
    found = {name: None if spec is None else load(spec) for name, spec in others.items()}
    for name, one in {"data": images, **found}.items():
        if one is not None:
            check_labels(one.labels, len(one), classes, f"the labels of --{name}")
            _check_shape(name, one, images)
    return Training(
        request, net, head_name, origin, images, found["validation"], found["test"], objective, recipe
    )


def _check(request: TrainingRequest) -> None:
    if request.head not in HEADS:
        raise unknown_name("head", request.head, HEADS)
    if request.scale is not None and request.head != "cosine":
        raise InputError("scale is that of a cosine head; give head cosine with it")
    if request.device not in DEVICES:
        raise unknown_name("device", request.device, DEVICES)
    check_count("devices", request.devices, 1)
    check_count("seed", request.seed, 0)


def _check_shape(name: str, images: Images, trained_on: Images) -> None:
    wanted, found = trained_on.pixels.shape[1:], images.pixels.shape[1:]
    if wanted != found:
        raise InputError(
            f"--{name} holds images of shape {found} (channels, height, width), and is trained on {wanted}; give images "
            "like those"
        )


def _arguments(request: TrainingRequest, images: Images) -> dict[str, str]:
    """Arguments of the model; those of a family that the images decide, where they were not given."""
    given = dict(request.model_arguments)
    kind, _, name = request.model.partition(":")
    if kind != "family" or name not in families() or images.pixels.ndim != 4:
        return given
    classes = max(2, len(images.class_names), int(images.labels.max()) + 1)
    facts = {"channels": images.pixels.shape[1], "classes": classes, "size": images.pixels.shape[2]}
    own = settings_of(name)
    return {key: str(value) for key, value in facts.items() if key in own} | given


def _with_head(request: TrainingRequest, net: nn.Module, images: Images) -> tuple[nn.Module, str, int]:
    """The network with the head asked for, the head's name, and its classes."""
    parameter = next(net.parameters(), None)
    if parameter is None:
        raise InputError(f"{request.model} has no weights that could be trained")
    name, linear = find_head(net, images[:1].to(parameter.dtype), request.head_name)
    if request.head == "cosine":
        scale = COSINE_SCALE if request.scale is None else request.scale
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed)
            net = with_cosine_head(net, name, scale)
    return net, name, linear.out_features
