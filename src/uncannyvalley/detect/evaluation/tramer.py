"""Is a detector's robustness believable? What it would imply for classification, beside what classifiers have reached.

Tramèr 2022 (arXiv 2107.11630, "Detecting adversarial examples is (nearly) as hard as classifying them"): a detector
that is right or rejects on a share a of images under every perturbation of up to eps, and is right and does not reject when
they are clean, yields a classifier with robust accuracy of at least a under perturbations of up to eps/2 (it searches the
ball for an input that is not rejected, which takes exponential time). A share above the best robust accuracy known at eps/2
would be a breakthrough in robust classification, and is far more likely to be a weak evaluation.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from uncannyvalley.detect.evaluation.rates import Rate
from uncannyvalley.errors import InputError


@dataclass(frozen=True)
class Claim:
    """What a result would imply if no stronger attack existed.

    eps          radius of the attacks
    attacks      whose images all counted
    accuracy     share of images that are right and accepted clean, and right or rejected under all these attacks
    implied_eps  eps/2, where a classifier of that accuracy would exist
    known        best robust accuracy known at the largest radius up to implied_eps; None where no table tells
    implausible  whether the accuracy's lower bound exceeds it; None where no table tells
    """

    eps: float
    attacks: tuple[str, ...]
    accuracy: Rate
    implied_eps: float
    known: float | None
    implausible: bool | None

    def __str__(self) -> str:
        if self.known is None:
            verdict = "no robust accuracy is given to compare with"
        elif self.implausible:
            verdict = f"above the best known, {self.known:.3f}: not to be believed before stronger attacks were tried"
        else:
            verdict = f"the best known is {self.known:.3f}: possible"
        return (
            f"right or rejected at eps={self.eps:.4g}: {self.accuracy}; implies a classifier with that robust accuracy "
            f"at eps={self.implied_eps:.4g}; {verdict}"
        )


def implied(
    accepted: Bool[np.ndarray, "n"],
    safe: Mapping[str, Bool[np.ndarray, "n"]],
    eps: Mapping[str, float],
    known: Mapping[float, float] | None = None,
) -> list[Claim]:
    """One claim for each radius; attacks of smaller radius count there too.

    accepted  rows that are classified right and not rejected when clean
    safe      attack → rows that are classified right or rejected under it
    eps       attack → its radius; others are left out
    known     radius → best robust accuracy known, in the attacks' norm and on these data

    Raises InputError for radii that are not positive, attacks without rows, and accuracies outside 0 and 1.
    """
    check_claims(eps, safe, known)
    claims = []
    for radius in sorted(set(eps.values())):
        names = tuple(name for name, one in eps.items() if one <= radius)
        claims.append(_claim(radius, names, accepted, [safe[name] for name in names], known or {}))
    return claims


def check_claims(
    eps: Mapping[str, float], attacks: Collection[str], known: Mapping[float, float] | None = None
) -> None:
    """Raise InputError for what ``implied`` cannot take."""
    for name, radius in eps.items():
        if name not in attacks:
            raise InputError(
                f"eps names the attack {name!r}, which was not evaluated; known: {list(attacks)}"
            )
        if not radius > 0:
            raise InputError(f"the radius of {name} must be positive, got {radius!r}")
    for radius, accuracy in (known or {}).items():
        if not 0 <= accuracy <= 1:
            raise InputError(f"a robust accuracy lies between 0 and 1; got {accuracy!r} at eps={radius:g}")


def _claim(
    radius: float,
    names: tuple[str, ...],
    accepted: np.ndarray,
    safe: Sequence[np.ndarray],
    known: Mapping[float, float],
) -> Claim:
    accuracy = Rate.where(np.logical_and.reduce([accepted, *safe]))
    below = [one for one in known if one <= radius / 2 * (1 + 1e-9)]
    best = known[max(below)] if below else None
    implausible = None if best is None else accuracy.low > best
    return Claim(radius, names, accuracy, radius / 2, best, implausible)
