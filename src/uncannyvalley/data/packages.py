"""Packages that only some names need, imported when such a name is used."""

import importlib
from types import ModuleType

from uncannyvalley.errors import InputError, first_line

BESIDE_TORCHVISION = (
    "it needs a torchvision that was built for the installed torch; with the CPU build of torch from another "
    "place torchvision breaks, and takes transformers with it, so use an environment of its own"
)
"""What to know before torchvision, or anything that pulls it in, is installed."""


def need(module: str, wanted_for: str, install: str) -> ModuleType:
    """The module of an optional package.

    Raises InputError where it is missing or cannot be imported (a torchvision beside a torch it was not
    built for raises RuntimeError), naming ``install``, what to do about it.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = first_line(error)
        package = module.partition(".")[0]
        raise InputError(f"{wanted_for} needs the package {package} ({reason}): {install}") from error
