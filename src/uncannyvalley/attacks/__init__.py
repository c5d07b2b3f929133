"""How x moves: attacks, and the control walks every attack is shown against."""

from collections.abc import Callable

from uncannyvalley.attacks.controls import assist, controls_of, noise
from uncannyvalley.attacks.evading import evading
from uncannyvalley.attacks.gradient import early, fgsm, gradient_walk, momentum, pgd
from uncannyvalley.attacks.isoconfidence import isoconfidence
from uncannyvalley.attacks.orthogonal import orthogonal
from uncannyvalley.errors import unknown_name
from uncannyvalley.types import Attack

ATTACKS: dict[str, Callable[..., Attack]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "momentum": momentum,
    "early": early,
    "noise": noise,
    "assist": assist,
    "evading": evading,
    "orthogonal": orthogonal,
    "isoconfidence": isoconfidence,
}


def by_name(name: str) -> Callable[..., Attack]:
    """The maker of the attack ``name``; InputError with the nearest name for an unknown one."""
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    return ATTACKS[name]


__all__ = [
    "ATTACKS", "assist", "by_name", "controls_of", "early", "evading", "fgsm", "gradient_walk", "isoconfidence",
    "momentum", "noise", "orthogonal", "pgd",
]  # fmt: skip
