"""AutoAttack and its parts: APGD, FAB and Square, of the library pyautoattack.

The library first asks the clean images seven times, to tell randomised and dynamic networks from others, and once for
their clean labels; each part asks once more for the clean and once for the final images.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from uncannyvalley.adversaries.adversary import Adversary, Outcome, check_eps, check_norm
from uncannyvalley.adversaries.containment import contained, installed, library
from uncannyvalley.checks import check_count
from uncannyvalley.errors import InputError

LIBRARY = "pyautoattack"
NORMS = {"linf": "Linf", "l2": "L2"}

Adjust = Callable[[Any, nn.Module], None]


def apgd_ce(norm: str = "linf", *, eps: float, steps: int | None = None, restarts: int = 1) -> Adversary:
    """APGD on the cross-entropy (Croce and Hein 2020), of pyautoattack.

    steps (None: 100) gradient steps of adaptive size from a random start, ``restarts`` (5 in the library outside its
    standard version) times for images that are not fooled yet. Queries an image: 10 + restarts · (steps + 1).
    Raises InputError for an unknown norm or eps or counts out of range.
    """
    return _apgd("apgd-ce", norm, eps, steps, restarts)


def apgd_dlr(norm: str = "linf", *, eps: float, steps: int | None = None, restarts: int = 1) -> Adversary:
    """APGD on the difference of logits ratio (Croce and Hein 2020), of pyautoattack.

    As apgd-ce; the loss divides by the distance to the third largest logit, so it needs three classes.
    """
    why = "divides by the distance to the third largest logit and"
    return _apgd("apgd-dlr", norm, eps, steps, restarts, classes=3, why=why)


def _apgd(name: str, norm: str, eps: float, steps: int | None, restarts: int, **needs: Any) -> Adversary:
    steps = check_count("steps", 100 if steps is None else steps, 1)
    restarts = check_count("restarts", restarts, 1)

    def adjust(evaluation: Any, model: nn.Module) -> None:
        made = library("pyautoattack.autopgd_base").APGDAttack
        evaluation.apgd = made(
            model, n_iter=steps, norm=evaluation.norm, n_restarts=restarts, eps=evaluation.epsilon,
            device=evaluation.device, logger=evaluation.logger,
        )  # fmt: skip

    return _part(name, "white box", norm, eps, {"steps": steps, "restarts": restarts}, adjust, **needs)


def fab(
    norm: str = "linf",
    *,
    eps: float,
    steps: int | None = None,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> Adversary:
    """FAB, the fast adaptive boundary attack (Croce and Hein 2020), of pyautoattack.

    It looks for the nearest adversarial, of which those within eps count. steps (None: 100) projections onto the
    linearised boundary, two queries and as many backwards as classes each; ``restarts`` is 5 in the library outside its
    standard version, all but the first from a random point. Queries an image: 10 + restarts · (2 steps + 2).
    Raises InputError for an unknown norm or eps or counts out of range.
    """
    settings = {
        "steps": check_count("steps", 100 if steps is None else steps, 1),
        "restarts": check_count("restarts", restarts, 1),
        "alpha_max": alpha_max, "eta": eta, "beta": beta,
    }  # fmt: skip

    def adjust(evaluation: Any, model: nn.Module) -> None:
        attack = evaluation.fab
        attack.n_iter, attack.n_restarts = settings["steps"], settings["restarts"]
        attack.alpha_max, attack.eta, attack.beta = alpha_max, eta, beta

    return _part("fab", "white box", norm, eps, settings, adjust)


def square(
    norm: str = "linf",
    *,
    eps: float,
    queries: int = 1000,
    restarts: int = 1,
    p_init: float = 0.8,
) -> Adversary:
    """Square, random search with squares (Andriushchenko et al. 2020), of pyautoattack.

    It sees logits alone. queries (5000 in the library) tries after a first of stripes (linf) or tiles (l2), fewer once
    the image is fooled; p_init is the share of pixels that the first squares cover. Queries an image: at most
    10 + restarts · (queries + 2). Images are (n, channels, height, width), for l2 at least 5 pixels high and wide.
    Raises InputError for an unknown norm or eps or counts out of range.
    """
    settings = {
        "queries": check_count("queries", queries, 1),
        "restarts": check_count("restarts", restarts, 1),
        "p_init": p_init,
    }

    def adjust(evaluation: Any, model: nn.Module) -> None:
        attack = evaluation.square
        attack.n_queries, attack.n_restarts, attack.p_init = settings["queries"], settings["restarts"], p_init

    return _part("square", "score", norm, eps, settings, adjust, squares=True)


def autoattack(norm: str = "linf", *, eps: float, queries: int = 5000, targets: int = 9) -> Adversary:
    """AutoAttack, standard version (Croce and Hein 2020), of pyautoattack.

    APGD on the cross-entropy, targeted APGD and targeted FAB with 100 steps for each of the ``targets`` likeliest other
    classes, then Square with ``queries`` tries; each part gets the images that none before it fooled. Another number of
    targets or queries is no longer the standard version. The targets are other classes than the predicted one and the
    targeted loss uses the fourth largest logit: it needs targets + 1 and at least 4 classes.
    Queries an image: 111 where the first part fools it, up to 119 + 305 · targets + queries where none does.
    Raises InputError for an unknown norm or eps or counts out of range.
    """
    targets = check_count("targets", targets, 1)
    settings = {"version": "standard", "queries": check_count("queries", queries, 1), "targets": targets}

    def adjust(evaluation: Any, model: nn.Module) -> None:
        evaluation.square.n_queries = settings["queries"]
        evaluation.apgd_targeted.n_target_classes = evaluation.fab.n_target_classes = targets

    why = f"with targets={targets} (take fewer where the network has fewer classes, from 4 on)"
    classes = max(targets + 1, 4)
    return _part(
        "autoattack", "white box", norm, eps, settings, adjust, squares=True, classes=classes, why=why
    )


def _part(
    name: str,
    kind: str,
    norm: str,
    eps: float,
    settings: dict[str, Any],
    adjust: Adjust,
    *,
    squares: bool = False,
    **needs: Any,
) -> Adversary:
    check_norm(name, norm, tuple(NORMS))
    check_eps(name, eps, optional=False)
    version = installed(LIBRARY)

    def attack(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Outcome:
        if squares:
            _check_for_squares(name, x, norm)
        parts = {} if name == "autoattack" else {"attacks": [name]}
        evaluation = library(LIBRARY).AutoAttack(
            model, norm=NORMS[norm], eps=eps, seed=seed, device=x.device,
            version="custom" if parts else "standard", **parts,
        )  # fmt: skip
        adjust(evaluation, model)
        images, labels = evaluation.run_standard_evaluation(x, y, batch_size=len(x))
        return Outcome(images, labels != y)  # the library keeps the true label where it found nothing

    run = contained(f"{name} ({version})", attack, **needs)
    return Adversary(name, version, kind, {"norm": norm, "eps": eps} | settings, run)


def _check_for_squares(name: str, x: Tensor, norm: str) -> None:
    """Square cuts the image in squares, in l2 at first in five tiles a side."""
    least = 5 if norm == "l2" else 1
    if x.dim() != 4 or min(x.shape[2:]) < least:
        raise InputError(
            f"{name} in {norm} needs images (n, channels, height, width) of at least {least} x {least} pixels, got "
            f"shape {tuple(x.shape)}"
        )
