"""``[[attacks]]`` of a plan file: only settings that an attack has can be given to it."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator

from uncannyvalley.adversaries import ADVERSARIES
from uncannyvalley.attacks import ATTACKS
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.run.named_attack import SCORES
from uncannyvalley.study.plan_file.values import (
    Arguments,
    Count,
    Keep,
    Label,
    Length,
    Misfits,
    Norm,
    Several,
    Table,
    Target,
    known,
)
from uncannyvalley.typed_arguments import typed

OWN_KEYS = ("norm", "eps", "steps", "step_size", "restarts")
"""Settings of attacks that are keys of a plan, not ``arguments``."""

AttackName = Annotated[str, known("attack", [*ATTACKS, *ADVERSARIES])]


class AttackTable(Table):
    """``[[attacks]]``: how x moves; ``every`` and ``keep`` go before those of the whole plan."""

    name: Label | None = None
    attack: Several[AttackName]
    norm: Several[Norm] | None = None
    eps: Several[Length] | None = None
    steps: Several[Count] | None = None
    step_size: Several[Length] | None = None
    random_start: Several[bool] | None = None
    target: Several[Target] | None = None
    restarts: Several[Count] | None = None
    every: Several[Count] | None = None
    keep: Several[Keep] | None = None
    arguments: Arguments = Field(default_factory=dict)

    @field_validator("steps", "step_size", "random_start", "target", "restarts", "every", "keep")
    @classmethod
    def _is_a_setting(cls, values: Sequence[Any] | None, info: Any) -> Sequence[Any] | None:
        """A library's path is its own: only settings that its attack has can be given."""
        nothing = {"random_start": False, "restarts": 1, "every": 1}.get(str(info.field_name))
        for attack in info.data.get("attack", ()):
            has = inspect.signature(ADVERSARIES[attack]).parameters if attack in ADVERSARIES else None
            is_given = any(one != nothing for one in values or ())
            if has is not None and is_given and info.field_name not in {"steps", "restarts"} & has.keys():
                settings = ", ".join(name for name in has if name not in OWN_KEYS)
                raise ValueError(
                    f"{info.field_name} does not go with {attack}, whose path is its library's; "
                    f"its arguments are {settings or 'none'}"
                )
        return values

    @field_validator("arguments")
    @classmethod
    def _are_settings(cls, arguments: dict[str, list[str]], info: Any) -> dict[str, list[str]]:
        attacks = info.data.get("attack", ())
        if faults := [
            fault
            for attack in attacks
            for name, texts in arguments.items()
            for fault in _misfits(attack, name, texts)
        ]:
            raise Misfits(faults)
        return arguments


def _misfits(attack: str, name: str, texts: list[str]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong with an argument of an attack."""
    maker = ATTACKS.get(attack) or ADVERSARIES[attack]
    own = (*OWN_KEYS, "random_start", "targeted") if attack in ATTACKS else OWN_KEYS
    takes = [one for one in inspect.signature(maker).parameters if one not in own]
    if name in own:
        key = "target" if name == "targeted" else name
        yield (name,), f"{name} is no argument; write the key {key} of this attack in its place"
    elif name not in takes:
        yield (name,), str(unknown_name(f"argument of {attack}", name, takes or ["(it takes none)"]))
    elif name not in SCORES:  # scores are measures, and of a layer only with a network at hand
        for position, text in enumerate(texts):
            try:
                typed(maker, {name: text}, f"argument of {attack}")
            except InputError as error:
                yield (name, position), str(error)
