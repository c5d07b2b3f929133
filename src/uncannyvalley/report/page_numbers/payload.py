"""What scripts of the page read: a JSON document that no name in it can end."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

VERSION = 1
"""Of the layout of the numbers."""

ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
"""Inside a script element "</script>" and "<!--" end it or open a comment, whatever stands around them."""


def payload_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of several runs; each is a ``run_numbers``."""
    return {"version": VERSION, "runs": list(runs)}


def payload_text(payload: Mapping[str, Any]) -> str:
    """The payload as ASCII JSON for a script element.

    Raises ValueError for NaN and infinities, which JSON does not have: ``finite_or_none`` takes them out of lists.
    """
    text = json.dumps(payload, allow_nan=False, separators=(",", ":"))
    for sign, escape in ESCAPES.items():
        text = text.replace(sign, escape)
    return text
