"""Which attacks a detector is tried on: ``NAME[:SETTING=VALUE,…]``, or a suite of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uncannyvalley.cli.options import pairs
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.typed_arguments import ratio

OWN = ("norm", "eps", "step_size", "steps", "random_start")
"""Settings that a request has fields for; all others go to the attack's maker."""


@dataclass(frozen=True)
class AttackChoice:
    """An attack by name. ``scale`` multiplies the command's eps where the settings name no eps of their own."""

    title: str
    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    scale: float = 1.0

    @classmethod
    def read(cls, text: str) -> "AttackChoice":
        """From ``square`` or ``square:queries=500,eps=4/255``."""
        name, _, rest = text.partition(":")
        return cls(text, name, pairs([one for one in rest.split(",") if one], "--attack NAME:"))


QUICK = (
    AttackChoice("fgsm", "fgsm"),
    AttackChoice("fgsm at eps/4", "fgsm", scale=0.25),
    AttackChoice("pgd", "pgd"),
    AttackChoice("pgd at eps/4", "pgd", scale=0.25),
    AttackChoice("pgd at 2 eps", "pgd", scale=2.0),
    AttackChoice("pgd to the flip", "early"),
    AttackChoice("momentum", "momentum"),
)

STANDARD = (
    *QUICK,
    AttackChoice("pgd, 40 steps", "pgd", {"steps": "40"}),
    *(
        AttackChoice(name, name)
        for name in (
            "apgd-ce",
            "apgd-dlr",
            "autoattack",
            "deepfool",
            "cw",
            "fab",
            "square",
            "nes",
            "hopskipjump",
        )
    ),
)

SUITES = {"quick": QUICK, "standard": STANDARD}
"""quick: our own gradient attacks, seconds to minutes. standard: those of kept libraries too, at the budgets that
``uncanny list attacks`` states (extra attacks): minutes for each, on one core."""


def chosen(
    texts: Sequence[str], suite: str | None, default: str | None = "quick"
) -> tuple[AttackChoice, ...]:
    """The attacks named one by one and those of the suite; the default suite where nothing is named.

    Raises InputError for unknown suites and for an attack that is named twice.
    """
    if suite is not None and suite not in SUITES:
        raise unknown_name("suite", suite, SUITES)
    if suite is None and not texts:
        suite = default
    found = [AttackChoice.read(one) for one in texts] + list(SUITES[suite] if suite else ())
    titles = [one.title for one in found]
    for title in titles:
        if titles.count(title) > 1:
            raise InputError(f"{title} is named twice; name each attack once")
    return tuple(found)


def request_of(
    choice: AttackChoice, *, norm: str | None, eps: float | None, steps: int | None, seed: int
) -> Any:
    """The choice as a request. ``steps`` is for our own attacks; ``norm`` and ``eps`` are not for attacks that look
    for the nearest adversarial image, which take them from their own settings alone."""
    import inspect

    from uncannyvalley.adversaries import ADVERSARIES
    from uncannyvalley.attacks import ATTACKS
    from uncannyvalley.run.named_attack import EPS
    from uncannyvalley.run.request import Request

    own = {name: text for name, text in choice.settings.items() if name in OWN}
    more = {name: text for name, text in choice.settings.items() if name not in OWN}
    if choice.name not in (*ATTACKS, *ADVERSARIES):
        raise unknown_name("attack", choice.name, [*ATTACKS, *ADVERSARIES])
    is_ours = choice.name in ATTACKS
    has_ball = (
        is_ours
        or inspect.signature(ADVERSARIES[choice.name]).parameters["eps"].default is inspect.Parameter.empty
    )
    norm = own.get("norm", norm if has_ball else None)
    radius = ratio(own["eps"]) if "eps" in own else None
    if radius is None and has_ball:
        radius = choice.scale * (eps if eps is not None else EPS.get(norm or "linf", EPS["linf"]))
    count = _whole(own["steps"]) if "steps" in own else (steps if is_ours and choice.name != "fgsm" else None)
    return Request(
        attack=choice.name, attack_arguments=more, norm=norm, eps=radius, steps=count, seed=seed,
        step_size=ratio(own["step_size"]) if "step_size" in own else None,
        random_start=own.get("random_start", "").lower() in ("true", "1", "yes"),
    )  # fmt: skip


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"steps must be a whole number, got {text!r}") from error
