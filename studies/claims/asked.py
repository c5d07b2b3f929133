"""What the paper says, claim by claim, in our words, and what measures it."""

from collections.abc import Callable
from dataclasses import dataclass

from claims import (
    approximating,
    architectures,
    attackers,
    bounding,
    queries,
    regularising,
    robust,
    suffix,
    third_order,
    thresholds,
    valley,
)
from claims.verdicts import Outcome
from claims.walks import World


@dataclass(frozen=True)
class Claim:
    """key: what ``--only`` and the figure's file call it; says: the claim."""

    key: str
    says: str
    measure: Callable[[World], Outcome]


CLAIMS = (
    Claim(
        "1",
        "sharpness rises until the label flips, then falls to a flat valley, label still wrong",
        valley.measure,
    ),
    Claim("2", "so it does on several architectures and data sets", architectures.measure),
    Claim("3", "under FGSM, PGD and other attacks, and not under noise", attackers.measure),
    Claim("4", "adversarial training moves the valley further out and does not remove it", robust.measure),
    Claim("5", "in language models the valley is weaker", suffix.measure),
    Claim(
        "6",
        "a threshold on sharpness finds adversarial examples of CIFAR-10 with more than 90 % accuracy",
        thresholds.measure,
    ),
    Claim(
        "7",
        "flatness with a low Lipschitz constant bounds the change of the loss; flatness alone does not",
        bounding.measure,
    ),
    Claim("8", "third-order terms are costly", third_order.measure),
    Claim("black-box", "open: black-box attacks end in the valley, too", queries.measure),
    Claim("approximations", "open: large models can be measured cheaply, to a tenth", approximating.measure),
    Claim(
        "regularisation",
        "open: regularisation makes clean points flatter, and those then sturdier",
        regularising.measure,
    ),
)
