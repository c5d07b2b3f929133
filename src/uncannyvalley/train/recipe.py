"""How a network is trained: everything but the images, the objective and the devices."""

from dataclasses import asdict, dataclass, field
from typing import Any

from uncannyvalley.attacks.ball import check_ball
from uncannyvalley.checks import check_count, is_number
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.train.augmentation import Augmentation

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "one-cycle", "constant", "piecewise")
SELECTIONS = ("robust", "clean", "last")

KEEPING = ("checkpoint_every", "checkpoint_steps")
"""Fields that say when things are kept, and decide no number."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Each field is checked; InputError names the first that cannot be used.

    epochs               passes over the training images
    batch_size           images of a step, on all devices together; what is left of an epoch is left out of it
    optimizer            "sgd" with Nesterov momentum, or "adamw"
    learning_rate        its largest value
    momentum             of sgd, above 0 and below 1
    weight_decay         of all weights, as torch's optimizers take it
    schedule             of the learning rate, step by step: "cosine" to 0; "one-cycle" up for 30 % of the steps, then down
                         (Smith and Topin 2019); "constant"; "piecewise", a tenth from 50 % and again from 75 %
    clip                 largest L2 norm of the gradient of all weights together; None for no limit
    seed                 of the order, the crops, the attacks' starts, dropout and the choice of validation images
    augmentation         what is done to the training images
    validation_share     of the training images, held out to select by; 0, or images of your own, for none
    selection            which network is kept: that of the best "robust" or "clean" accuracy at validation (of equals
                         that of the better other accuracy, then the first), or the "last". None: "robust" where eps is
                         given, else "clean"; "last" where there is nothing to validate on
    norm, eps            the ball of the attack at validation, PGD; eps None for no attack
    attack_steps         its steps, of length 2.5 eps / attack_steps
    random_start         whether it starts at a random point of the ball
    evaluation_examples  validation images that are looked at, at most
    evaluate_every       epochs from one look to the next; the last epoch is looked at too
    checkpoint_every     seconds between checkpoints, at least; None for none by time
    checkpoint_steps     steps between checkpoints; None for none by steps
    """

    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    clip: float | None = None
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    validation_share: float = 0.1
    selection: str | None = None
    norm: str = "linf"
    eps: float | None = None
    attack_steps: int = 10
    random_start: bool = False
    evaluation_examples: int = 1000
    evaluate_every: int = 1
    checkpoint_every: float | None = 60.0
    checkpoint_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "attack_steps", "evaluation_examples", "evaluate_every"):
            check_count(name, getattr(self, name), 1)
        check_count("seed", self.seed, 0)
        if self.checkpoint_steps is not None:
            check_count("checkpoint_steps", self.checkpoint_steps, 1)
        for name, kind, known in (
            ("optimizer", "optimizer", OPTIMIZERS),
            ("schedule", "schedule", SCHEDULES),
            ("selection", "selection", SELECTIONS),
        ):
            if (value := getattr(self, name)) not in known and not (name == "selection" and value is None):
                raise unknown_name(kind, str(value), known)
        check_ball(self.norm, 1.0 if self.eps is None else self.eps, 1.0)
        _check_number("learning_rate", self.learning_rate, above=0.0)
        # Nesterov's form is not defined without momentum
        _check_number("momentum", self.momentum, above=0.0, below=1.0)
        _check_number("weight_decay", self.weight_decay, least=0.0)
        _check_number("validation_share", self.validation_share, least=0.0, below=1.0)
        if self.clip is not None:
            _check_number("clip", self.clip, above=0.0)
        if self.checkpoint_every is not None:
            _check_number("checkpoint_every", self.checkpoint_every, least=0.0)
        for name in ("learning_rate", "momentum", "weight_decay", "validation_share", "clip", "eps"):
            if (value := getattr(self, name)) is not None:  # 1 and 1.0 are one recipe
                object.__setattr__(self, name, float(value))
        if not isinstance(self.augmentation, Augmentation):
            raise InputError(
                f"augmentation is an Augmentation(pad=…, mirror=…), got {type(self.augmentation).__name__}"
            )
        if not isinstance(self.random_start, bool):
            raise InputError(f"random_start is true or false, got {self.random_start!r}")
        if self.selection == "robust" and self.eps is None:
            raise InputError(
                "selection by robust accuracy needs the attack at validation: give eps, or select by clean accuracy"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """Every field that decides a number."""
        return {name: value for name, value in asdict(self).items() if name not in KEEPING}


def _check_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raise InputError unless ``value`` is a finite number within the limits that are given."""
    fits = (
        is_number(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not fits:
        limits = [
            f"{words} {limit:g}"
            for words, limit in (("of at least", least), ("above", above), ("below", below))
            if limit is not None
        ]
        raise InputError(f"{name} must be a finite number {' and '.join(limits)}, got {value!r}")
