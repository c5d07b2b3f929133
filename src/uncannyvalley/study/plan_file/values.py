"""What single values of a plan file may be: each refusal says what was expected and what came."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import product
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WrapValidator

from uncannyvalley.attacks.ball import NORMS
from uncannyvalley.derivatives.layer_measures import ALONG_STEP, ESTIMATED, LOG, PER_GINI
from uncannyvalley.derivatives.quantities import QUANTITIES
from uncannyvalley.derivatives.sites import INPUT
from uncannyvalley.errors import unknown_name
from uncannyvalley.run.request import DTYPES
from uncannyvalley.study.plan_file.labels import LONGEST, SAFE, safe
from uncannyvalley.typed_arguments import ratio
from uncannyvalley.walking import KEEP

T = TypeVar("T")


class One(list[T]):
    """The one value of a setting that was written without brackets."""


class Misfits(ValueError):
    """Faults of parts of a value: what leads to each part from the value, and the message."""

    def __init__(self, faults: Sequence[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(message for _, message in faults))
        self.faults = faults


class Table(BaseModel):
    """Nothing is guessed: no unknown keys, and no value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def values(self) -> dict[str, list[Any]]:
        """Values of each setting that was written, in the order of the fields; arguments as "arguments.NAME"."""
        found: dict[str, list[Any]] = {}
        for key in type(self).model_fields:
            value = getattr(self, key)
            if key == "arguments":
                found |= {f"arguments.{name}": values for name, values in value.items()}
            elif key != "name" and value is not None:
                found[key] = value
        return found

    def size(self) -> int:
        """Combinations that the table spans."""
        return math.prod(map(len, self.values().values()))

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Each choice of one value for every setting."""
        values = self.values()
        for chosen in product(*values.values()):
            yield dict(zip(values, chosen, strict=True))


def shown(value: Any) -> str:
    """``value`` as people write it in TOML, shortened."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _several(value: Any, validate: Callable[[Any], Any]) -> Any:
    return validate(value) if isinstance(value, list) else One(validate([value]))


def known(kind: str, names: Collection[str]) -> AfterValidator:
    """Refuses texts that are none of ``names``, with the nearest of them."""

    def check(name: str) -> str:
        if name not in names:
            raise unknown_name(kind, name, names)
        return name

    return AfterValidator(check)


def _label(name: str) -> str:
    if not SAFE.fullmatch(name) or len(name) > LONGEST:
        instead = f", as {safe(name)[:LONGEST]!r}" if safe(name) else ""
        raise ValueError(
            f"a name becomes part of folder names: expected up to {LONGEST} letters, digits and . _ + -{instead}; "
            f"got {shown(name)}"
        )
    return name


def _number(value: Any) -> float:
    try:
        if isinstance(value, str):
            return ratio(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):  # InputError is a ValueError
        pass
    raise ValueError(f"expected a number or a fraction like 8/255, got {shown(value)}")


def _argument(value: Any) -> str:
    if isinstance(value, (bool, int, float)):
        return shown(value)
    if isinstance(value, str):
        return value
    raise ValueError(f"expected text, a number, true or false, got {shown(value)}")


def _target(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"expected a class number, a class name in quotes or 'least-likely', got {shown(value)}")


def unmeasurable(name: str, names: Collection[str] | None) -> str:
    """Why ``name`` can be none of the measures ``names``, nor that of a layer; "" where it can, or ``names`` are not known yet.

    Which layers there are, only the network knows.
    """
    bare, at, layer = name.partition("@")
    if not at:
        return "" if names is None or name in names else str(unknown_name("measure", name, names))
    logs = [LOG + one + end for one in QUANTITIES for end in ("", PER_GINI)]
    exact = [*QUANTITIES, *logs]
    of_layers = [*exact, *(ESTIMATED + one for one in exact), *ALONG_STEP]
    if bare not in of_layers:
        return str(unknown_name("measure of a layer", bare, of_layers))
    return "" if layer else f"{name!r} names no layer; write {bare}@LAYER, as {bare}@{INPUT}"


Several = Annotated[list[T], Field(min_length=1), WrapValidator(_several)]
"""One value, or a list of values that spans the grid."""

Text = Annotated[str, Field(min_length=1)]
Label = Annotated[str, AfterValidator(_label)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
Norm = Annotated[str, known("norm", NORMS)]
Keep = Annotated[str, known("keep", KEEP)]
Dtype = Annotated[str, known("dtype", DTYPES)]
Target = Annotated[str, BeforeValidator(_target)]
Arguments = dict[str, Several[Annotated[str, BeforeValidator(_argument)]]]
