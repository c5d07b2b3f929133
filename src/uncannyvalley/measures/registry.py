"""The registry of measures, and the one function that reads them off a probe."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.types import Measure, PerExample, Probe

_REGISTRY: dict[str, Measure] = {}

MAX_BLOCK_ELEMENTS = 2**22
"""Rows times classes that are read at once: about 32 MB for each float64 table in use."""


def measure(
    name: str,
    *,
    unit: str,
    order: int,
    needs: Iterable[str] = (),
    reference: str = "",
    version: int = 1,
    default: bool = True,
) -> Callable[[PerExample], Measure]:
    """Decorator: register a function of a probe as the measure ``name``.

    The same function defined again, as when a notebook's cell is run once more, takes the place of the first;
    InputError where another function has the name.

    Example
    -------
    >>> @measure("log_distance_ratio", unit="nats", order=0)  # doctest: +SKIP
    ... def log_distance_ratio(probe):
    ...     \"\"\"log of the L2 distance moved over the norm of the features.\"\"\"
    ...     return distance_l2(probe).log() - probe.log_feature_norm
    """

    def register(fn: PerExample) -> Measure:
        if name in _REGISTRY and _home(_REGISTRY[name].fn) != _home(fn):
            raise InputError(f"a measure named {name!r} exists already; choose another name")
        _REGISTRY[name] = Measure(name, unit, order, fn, frozenset(needs), reference, version, default)
        return _REGISTRY[name]

    return register


def _home(fn: PerExample) -> tuple[str | None, str | None]:
    return getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)


def available() -> dict[str, Measure]:
    """All registered measures by name, sorted by derivative order, which is by cost."""
    return dict(sorted(_REGISTRY.items(), key=lambda item: item[1].order))


def resolve(measures: Sequence[str | Measure] | None) -> tuple[Measure, ...]:
    """The measures meant: names or measures; None means every closed-form one."""
    if measures is None:
        return tuple(known for known in available().values() if known.default)
    if isinstance(measures, str):
        raise InputError(f"measures is a list of names, got the text {measures!r}; write [{measures!r}]")
    resolved: dict[str, Measure] = {}
    for wanted in measures:
        if isinstance(wanted, Measure):
            resolved[wanted.name] = wanted
        elif wanted in _REGISTRY:
            resolved[wanted] = _REGISTRY[wanted]
        else:
            raise unknown_name("measure", wanted, _REGISTRY)
    return tuple(resolved.values())


def read(probe: Probe, measures: Sequence[Measure]) -> dict[str, np.ndarray]:
    """Every measure of every row of ``probe``: name → float64 (n,), on the CPU.

    Rows are read in blocks, so memory stays bounded for vocabularies of 50 000 classes.
    """
    count, classes = probe.logits.shape
    block = max(1, MAX_BLOCK_ELEMENTS // classes)
    parts = []
    with torch.no_grad():
        for first in range(0, count, block):
            rows = probe if block >= count else probe.rows(slice(first, first + block))
            values = [one(rows).double() for one in measures]
            if values:
                parts.append(torch.stack(values).cpu())
    if not parts:
        return {}
    table = torch.cat(parts, dim=1).numpy()
    return {one.name: table[position] for position, one in enumerate(measures)}
