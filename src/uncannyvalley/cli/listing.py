"""``uncanny list``: attacks and measures by name."""

from typing import Annotated

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import print_json, print_table
from uncannyvalley.errors import unknown_name


def list_names(
    what: Annotated[str, typer.Argument(help="attacks or measures.", show_default=False)],
    json: options.Json = False,
) -> None:
    """List the attacks or the measures, with what they are."""
    if what == "attacks":
        from uncannyvalley.attacks import ATTACKS

        rows = [[name, (make.__doc__ or "").strip().split("\n")[0]] for name, make in ATTACKS.items()]
        _print("Attacks and control walks", ["name", "description"], rows, json)
    elif what == "measures":
        from uncannyvalley.measures import available

        found = [
            [one.name, str(one.order), one.unit, "yes" if one.default else "no", one.description]
            for one in available().values()
        ]
        _print("Measures", ["name", "order", "unit", "default", "description"], found, json)
    else:
        raise unknown_name("list", what, ["attacks", "measures"])


def _print(title: str, header: list[str], rows: list[list[str]], json: bool) -> None:
    if json:
        print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        print_table(title, header, rows, left=len(header))
