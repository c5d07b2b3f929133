"""Objectives by the names that the command line and plans use: a base and wrappers, joined by +."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.train.objectives.adversarial import pgd_at
from uncannyvalley.train.objectives.ascending import sam
from uncannyvalley.train.objectives.flatness import flat
from uncannyvalley.train.objectives.objective import Objective
from uncannyvalley.train.objectives.plain import erm
from uncannyvalley.train.objectives.trades import trades
from uncannyvalley.typed_arguments import ratio


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{text!r} is no whole number; write it as 7") from error


_READ: dict[str, Callable[[str], object]] = {
    "norm": str, "loss": str, "steps": _whole,
    "eps": ratio, "step_size": ratio, "beta": ratio, "weight": ratio, "rho": ratio,
}  # fmt: skip
"""Argument → what its text becomes."""


class _Named(NamedTuple):
    """``make`` takes ``takes`` by name, of which ``requires`` cannot be left out; wrappers take an objective first."""

    make: Callable[..., Objective]
    takes: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


_BALL = ("norm", "eps", "step_size", "steps")

_RADII = {"linf": "8/255", "l2": "0.5"}
"""Where no eps is given: the radius by norm, as of recorded walks."""

_BASES: dict[str, _Named] = {
    "erm": _Named(erm, ("loss",)),
    "squared": _Named(lambda: erm("squared")),
    "pgd-at": _Named(pgd_at, (*_BALL, "loss")),
    "trades": _Named(trades, (*_BALL, "beta")),
}

_WRAPPERS: dict[str, _Named] = {
    "flatness": _Named(flat, ("weight",), ("weight",)),
    "log-flatness": _Named(
        lambda objective, weight: flat(objective, weight, log=True), ("weight",), ("weight",)
    ),
    "sam": _Named(sam, ("rho",)),
}

KINDS: dict[str, str] = {
    "erm": "mean −log p_y of the images as they are, or loss=squared; 1 forward, 1 backward",
    "squared": "mean Σ_s (z_s − 1[s = y])², no softmax; 1 forward, 1 backward",
    "pgd-at": "mean loss of images moved by m steps of PGD (Madry et al. 2018); eps=8/255 (l2: 0.5), steps=7, "
    "step_size=2.5 eps/steps, norm=linf, loss; m + 1 forwards and backwards",
    "trades": "−log p_y + beta · KL(p ‖ p') to images moved by m steps (Zhang et al. 2019); eps=8/255 (l2: 0.5), "
    "steps=7, step_size=2.5 eps/steps, norm=linf, beta=6; m + 3 forwards, m + 2 backwards",
    "+flatness": "adds weight · mean κ of the head (Petzka et al. 2021; Adilova et al. 2023); no pass more",
    "+log-flatness": "adds weight · mean log κ of the head; no pass more",
    "+sam": "gradients at weights moved up by rho=0.05 (Foret et al. 2021); twice the passes",
}
"""What ``named`` joins: name → formula, arguments and passes over a batch."""


def named(text: str, arguments: Mapping[str, str] | None = None) -> Objective:
    """The objective that ``text`` names, as in "pgd-at+log-flatness+sam", with arguments as texts.

    Numbers may be written as fractions, eps=8/255, which is also the radius where none is given (norm l2: 0.5).
    Raises InputError for unknown names, for arguments that are missing, unknown or not used by any of the parts, and for
    values that cannot be used.
    """
    first, *rest = [part.strip() for part in text.split("+")]
    if first not in _BASES:
        raise unknown_name("objective", first, _BASES)
    for name in rest:
        if name not in _WRAPPERS:
            raise unknown_name("wrapper of objectives", name, _WRAPPERS)
    given = dict(arguments or {})
    parts = [_BASES[first], *(_WRAPPERS[name] for name in rest)]
    taken = [name for part in parts for name in part.takes]
    for name in given:
        if name not in taken:
            raise unknown_name(f"argument of the objective {text!r},", name, taken)
    found = parts[0].make(**_arguments(first, parts[0], given))
    for name, part in zip(rest, parts[1:], strict=True):
        found = part.make(found, **_arguments(name, part, given))
    return found


def _arguments(name: str, part: _Named, given: Mapping[str, str]) -> dict[str, object]:
    """Those of ``given`` that the part takes, as numbers."""
    for one in part.requires:
        if one not in given:
            raise InputError(f"the objective {name!r} needs {one}; give it, for example {one}=0.1")
    if "eps" in part.takes:
        usual = _RADII.get(given.get("norm", "linf"), "0.1")  # an unknown norm is refused when it is made
        given = {"eps": usual, **given}
    return {one: _READ[one](given[one]) for one in part.takes if one in given}
