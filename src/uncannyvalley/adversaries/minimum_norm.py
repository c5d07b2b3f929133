"""Gradient attacks of the library foolbox that look for the nearest adversarial: C&W, DeepFool, DDN and FMN."""

from typing import Any

from torch import Tensor, nn

from uncannyvalley.adversaries.adversary import Adversary, Outcome, check_eps, check_norm
from uncannyvalley.adversaries.containment import contained, installed, library
from uncannyvalley.checks import check_count

LIBRARY = "foolbox"


def cw(
    norm: str = "l2",
    *,
    eps: float | None = None,
    steps: int | None = None,
    binary_search_steps: int = 5,
    stepsize: float = 0.01,
    confidence: float = 0.0,
    initial_const: float = 0.001,
    abort_early: bool = True,
) -> Adversary:
    """C&W, Adam on distance plus weighted logit gap (Carlini and Wagner 2017), of foolbox.

    binary_search_steps searches (9 in the library) over the weight of the gap, of steps (None: 200; 10000 in the library,
    which takes hours) each, fewer where abort_early sees no progress of the batch.
    Queries an image: at most binary_search_steps · steps + 1. An image for which nothing is found comes back black, and
    counts as fooled where the black image is misclassified: so the library has it.
    Raises InputError for a norm other than l2 or settings out of range.
    """
    settings = {
        "steps": check_count("steps", 200 if steps is None else steps, 1),
        "binary_search_steps": check_count("binary_search_steps", binary_search_steps, 1),
        "stepsize": stepsize, "confidence": confidence, "initial_const": initial_const, "abort_early": abort_early,
    }  # fmt: skip
    return _nearest("cw", {"l2": "L2CarliniWagnerAttack"}, norm, eps, settings)


def deepfool(
    norm: str = "linf",
    *,
    eps: float | None = None,
    steps: int | None = None,
    candidates: int = 10,
    overshoot: float = 0.02,
    loss: str = "logits",
) -> Adversary:
    """DeepFool, steps onto the nearest linearised boundary (Moosavi-Dezfooli et al. 2016), of foolbox.

    steps (None: 50), each a forward and a backward for each of the ``candidates`` likeliest classes but the first; the
    batch stops once all its images are fooled. loss is "logits" or "crossentropy".
    Queries an image: at most 2 + steps · (candidates − 1).
    Raises InputError for an unknown norm or settings out of range.
    """
    settings = {
        "steps": check_count("steps", 50 if steps is None else steps, 1),
        "candidates": check_count("candidates", candidates, 2),
        "overshoot": overshoot, "loss": loss,
    }  # fmt: skip
    return _nearest("deepfool", {"linf": "LinfDeepFoolAttack", "l2": "L2DeepFoolAttack"}, norm, eps, settings)


def ddn(
    norm: str = "l2",
    *,
    eps: float | None = None,
    steps: int | None = None,
    init_epsilon: float = 1.0,
    gamma: float = 0.05,
) -> Adversary:
    """DDN, direction and norm apart (Rony et al. 2019), of foolbox.

    steps (None: 100) gradient steps, each projected onto a sphere that shrinks by ``gamma`` when the image is fooled and
    grows otherwise. Queries an image: steps + 1.
    Raises InputError for a norm other than l2 or settings out of range.
    """
    settings = {
        "steps": check_count("steps", 100 if steps is None else steps, 1),
        "init_epsilon": init_epsilon, "gamma": gamma,
    }  # fmt: skip
    return _nearest("ddn", {"l2": "DDNAttack"}, norm, eps, settings)


def fmn(
    norm: str = "linf",
    *,
    eps: float | None = None,
    steps: int | None = None,
    max_stepsize: float = 1.0,
    gamma: float = 0.05,
) -> Adversary:
    """FMN, the fast minimum-norm attack (Pintor et al. 2021), of foolbox.

    steps (None: 100) gradient steps of max_stepsize and less, each projected onto a ball whose radius follows the
    boundary. foolbox 3.3.4 leaves the projection out in l2, so there it finds adversarials, but not near ones: take ddn.
    Queries an image: steps + 1.
    Raises InputError for an unknown norm or settings out of range.
    """
    settings = {
        "steps": check_count("steps", 100 if steps is None else steps, 1),
        "max_stepsize": max_stepsize, "gamma": gamma,
    }  # fmt: skip
    return _nearest("fmn", {"linf": "LInfFMNAttack", "l2": "L2FMNAttack"}, norm, eps, settings)


def foolbox_model(model: nn.Module, x: Tensor) -> Any:
    """The network as foolbox calls it: images in [0, 1], no preprocessing, on the device of ``x``."""
    return library(LIBRARY).PyTorchModel(model, bounds=(0, 1), device=x.device, preprocessing=None)


def _nearest(
    name: str, classes: dict[str, str], norm: str, eps: float | None, settings: dict[str, Any]
) -> Adversary:
    check_norm(name, norm, tuple(classes))
    check_eps(name, eps, optional=True)
    version = installed(LIBRARY)

    def attack(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Outcome:
        made = getattr(library(LIBRARY).attacks, classes[norm])(**settings)
        _, images, fooled = made(foolbox_model(model, x), x, y, epsilons=eps)
        return Outcome(images, fooled)

    settings_told = {"norm": norm, "eps": eps} | settings
    return Adversary(name, version, "white box", settings_told, contained(f"{name} ({version})", attack))
