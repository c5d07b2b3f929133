"""``uncanny list``: attacks, measures and quantities by name."""

from typing import Annotated

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import print_json, print_table
from uncannyvalley.errors import unknown_name


def list_names(
    what: Annotated[str, typer.Argument(help="attacks, measures or quantities.", show_default=False)],
    json: options.Json = False,
) -> None:
    """List the attacks, the measures at the head or the quantities of any layer, with what they are."""
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
    elif what == "quantities":
        from uncannyvalley.derivatives.quantities import QUANTITIES

        rows = [[one.name, str(one.order), one.unit, one.formula] for one in QUANTITIES.values()]
        _print("Quantities of any layer", ["name", "order", "unit", "formula"], rows, json)
    else:
        raise unknown_name("list", what, ["attacks", "measures", "quantities"])


def _print(title: str, header: list[str], rows: list[list[str]], json: bool) -> None:
    if json:
        print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        print_table(title, header, rows, left=len(header))
