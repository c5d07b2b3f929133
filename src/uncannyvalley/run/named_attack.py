"""The attack that a request names: one of ours, recorded step by step, or a library's, watched query by query."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uncannyvalley import attacks
from uncannyvalley.adversaries import ADVERSARIES, Adversary
from uncannyvalley.attacks import ATTACKS, assist, noise
from uncannyvalley.derivatives.layer_objective import layer_sharpness
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.splitting import SplitModel
from uncannyvalley.typed_arguments import typed
from uncannyvalley.types import Attack

if TYPE_CHECKING:
    from uncannyvalley.run.request import Request

EPS = {"linf": 8 / 255, "l2": 0.5}
"""Radius where none is given."""

CONTROL_STEPS = 20
"""Steps of the control walks beside a library's attack, where none are given."""

SCORES = ("score", "push")
"""Settings that name a function of the probe: a measure, or log κ of a layer as log_relative_sharpness@LAYER."""


def make_attack(request: "Request", model: SplitModel) -> Attack | Adversary:
    """The attack asked for, with every setting that was given; InputError for settings that it does not have."""
    if request.attack in ATTACKS:
        return _ours(request, model)
    if request.attack in ADVERSARIES:
        return _of_library(request)
    raise unknown_name("attack", request.attack, [*ATTACKS, *ADVERSARIES])


def _ours(request: "Request", model: SplitModel) -> Attack:
    """Its step size is a quarter of eps where none is given (fgsm: eps)."""
    maker = ATTACKS[request.attack]
    settings: dict[str, Any] = {
        "norm": request.ball_norm,
        "eps": request.ball_eps,
        "random_start": request.random_start,
        "targeted": request.target is not None,
    }
    if request.attack != "fgsm" or request.step_size is not None:
        settings["step_size"] = request.ball_eps / 4 if request.step_size is None else request.step_size
    return maker(**settings | _more(request, maker, settings, model))


def _more(
    request: "Request", maker: Callable[..., Any], taken: dict[str, Any], model: SplitModel | None = None
) -> dict[str, Any]:
    """The settings given by name, as the types that the maker states."""
    given = dict(request.attack_arguments)
    for name in given:
        if name in taken:
            raise InputError(
                f"{name} has an option of its own; write --{name.replace('_', '-')} in place of --attack-arg"
            )
    scores = {name: given.pop(name) for name in SCORES if name in given and model is not None}
    found = typed(maker, given, f"setting of {request.attack}", besides=tuple(taken))
    known = inspect.signature(maker).parameters
    for name, text in scores.items():
        if name not in known:
            raise unknown_name(
                f"setting of {request.attack}", name, [one for one in known if one not in taken]
            )
        measure, at, layer = text.partition("@")
        if at and measure != "log_relative_sharpness":
            raise InputError(
                f"{name}={text!r}: of a layer, log_relative_sharpness can be moved; write log_relative_sharpness@{layer}"
            )
        found[name] = layer_sharpness(model, layer) if at and model is not None else text
    return found


def _of_library(request: "Request") -> Adversary:
    """Norm, radius and counts are the attack's own where none are given."""
    maker = ADVERSARIES[request.attack]
    known = inspect.signature(maker).parameters
    refused = {
        "--step-size": request.step_size is not None, "--random-start": request.random_start, "--target": request.target is not None,
        "--every": request.every != 1, "--keep": request.keep is not None,
        "--steps": request.steps is not None and "steps" not in known,
        "--restarts": request.restarts != 1 and "restarts" not in known,
    }  # fmt: skip
    for option, is_given in refused.items():
        if is_given:
            has = ", ".join(name for name in known if name not in ("norm", "eps"))
            raise InputError(
                f"{option} does not go with {request.attack}, whose path is its library's; its settings are {has} "
                "(--attack-arg NAME=VALUE)"
            )
    settings: dict[str, Any] = {
        "norm": request.norm, "eps": request.eps, "steps": request.steps,
        "restarts": None if request.restarts == 1 else request.restarts,
    }  # fmt: skip
    if known["eps"].default is inspect.Parameter.empty and request.eps is None:
        settings["eps"] = EPS.get(request.norm or known["norm"].default, EPS["linf"])
    chosen = {name: value for name, value in settings.items() if value is not None}
    return maker(**chosen | _more(request, maker, settings))


def control_attacks(attack: Attack | Adversary) -> tuple[Attack, ...]:
    """``noise`` and ``assist`` beside an attack: in its ball, or in the usual one where it has none."""
    if isinstance(attack, Attack):
        return attacks.controls_of(attack)
    eps = attack.eps or EPS[attack.norm]
    return tuple(make(attack.norm, eps=eps, step_size=eps / 4) for make in (noise, assist))
