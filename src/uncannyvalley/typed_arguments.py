"""Texts of the command line → arguments of a function, as the types that its annotations state; lengths as people write them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from pydantic import TypeAdapter, ValidationError

from uncannyvalley.errors import InputError, unknown_name


def typed(
    build: Callable[..., Any], arguments: Mapping[str, str], what: str, *, besides: Sequence[str] = ()
) -> dict[str, Any]:
    """Each argument as its annotated type; text where there is none.

    Raises InputError for a name that ``build`` does not take, other than those in ``besides``, which are given
    otherwise, and for a text that is no such type.
    """
    parameters = inspect.signature(build, eval_str=True).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    found: dict[str, Any] = {}
    for name, text in arguments.items():
        if name not in parameters and not takes_any:
            raise unknown_name(what, name, [one for one in parameters if one not in besides])
        annotation = parameters[name].annotation if name in parameters else inspect.Parameter.empty
        if annotation is inspect.Parameter.empty:
            found[name] = text
            continue
        try:
            found[name] = TypeAdapter(annotation).validate_strings(text)
        except ValidationError as error:
            raise InputError(
                f"{what} {name}={text!r} is no {annotation}: {error.errors()[0]['msg']}"
            ) from error
    return found


def ratio(text: str) -> float:
    """A number, or a fraction like 8/255 or 0.5/255; InputError for any other text."""
    above, _, below = text.partition("/")
    try:
        return float(Fraction(above) / Fraction(below or 1))
    except (ValueError, ArithmeticError) as error:  # ArithmeticError: too large, or 1/0
        raise InputError(f"{text!r} is no number; write it as 0.03 or as 8/255") from error


def length_text(length: float) -> str:
    """A length in units of the input's range as people write it: 0.4, or 8/255. ``ratio`` reads both."""
    plain = f"{length:g}"
    return plain if len(plain) <= 5 else f"{length * 255:.4g}/255"
