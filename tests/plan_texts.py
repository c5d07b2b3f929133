"""Plans that are refused: the lines of the refusal, without the file's name."""

from collections.abc import Callable

import pytest

from uncannyvalley.errors import InputError

NAME = "PLAN.toml"


def refusal_of(read: Callable[[], object]) -> list[str]:
    with pytest.raises(InputError) as caught:
        read()
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{NAME}:") for line in lines)
    return [line.removeprefix(f"{NAME}:") for line in lines]
