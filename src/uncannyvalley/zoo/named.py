"""What a loader of named models hands over, and the arguments it takes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from torch import nn

from uncannyvalley.errors import InputError, unknown_name

T = TypeVar("T")


class Named(NamedTuple):
    """A network from images in [0, 1] to logits, and the part of it that a file of weights is matched against."""

    net: nn.Module
    inner: nn.Module


def known_arguments(given: Mapping[str, str], known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Each of the texts ``given`` read by its reader; InputError for other names and unreadable texts."""
    read: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            raise unknown_name("model argument", name, known or ["(this kind of model takes none)"])
        try:
            read[name] = known[name](text)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"model argument {name}={text!r} is no {known[name].__name__}") from error
    return read
