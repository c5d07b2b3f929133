"""``uncanny check``: can this model be measured on these data, and what will it cost?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import console, print_doubts, print_json, print_table

if TYPE_CHECKING:
    from uncannyvalley.derivatives.costs import LayerCost


def check(
    model: options.Model = "demo",
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    weights: options.Weights = None,
    data: options.Data = "digits",
    limit: options.Limit = 64,
    order: Annotated[
        int | None,
        typer.Option(help="2 or 3: also predict what curvature of that order costs, layer by layer."),
    ] = None,
    head: options.HeadName = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    prepare: options.Prepare = True,
    compile: options.Compile = False,
    json: options.Json = False,
) -> None:
    """Split the model, prove the split, and try a short attack: everything that could spoil a recording."""
    from uncannyvalley.run.checkup import check_up
    from uncannyvalley.run.request import Request

    found = check_up(
        Request(
            model=model, model_arguments=options.pairs(model_arg), weights=weights, data=data, limit=limit, head=head, device=device,
            dtype=dtype, prepare=prepare, compile=compile,
        ),
        order,
    )  # fmt: skip
    if json:
        print_json(found.to_dict())
        return
    rows: list[list[Any]] = [[name, str(value)] for name, value in found.facts.items()]
    print_table("Model and data", ["", ""], rows, left=2)
    if found.costs:
        console.print()
        _print_costs(found.costs)
    console.print()
    print_doubts(found.diagnostics)
    if not any(one.fired for one in found.diagnostics):
        console.print("Ready to record.")


def _print_costs(costs: Sequence["LayerCost"]) -> None:
    header = ["layer", "way", "order", "weights", "backwards", "s/image", "MB", "chunk"]
    rows = [
        [
            one.layer, one.way, str(one.order), str(one.weights), str(one.backwards),
            f"{one.seconds:.3g}", f"{one.megabytes:.3g}", str(one.chunk),
        ]
        for one in costs
    ]  # fmt: skip
    print_table("Predicted cost of curvature (MB for a chunk of images)", header, rows, left=2)
    for order in sorted({one.order for one in costs}):
        seconds = sum(one.seconds for one in costs if one.order == order)
        console.print(f"All layers one by one, order {order}: about {seconds:.3g} s an image.")
    if any(one.way == "estimate" for one in costs):
        console.print("Layers marked estimate are too large for exact values: use --method estimate.")
