"""``uncanny check``: can this model be measured on these data, and what will it cost?"""

from typing import Any

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import console, print_doubts, print_json, print_table


def check(
    model: options.Model = "demo",
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    data: options.Data = "digits",
    limit: options.Limit = 64,
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
            model=model, model_arguments=options.pairs(model_arg), data=data, limit=limit, head=head, device=device,
            dtype=dtype, prepare=prepare, compile=compile,
        )
    )  # fmt: skip
    if json:
        print_json(found.to_dict())
        return
    rows: list[list[Any]] = [[name, str(value)] for name, value in found.facts.items()]
    print_table("Model and data", ["", ""], rows, left=2)
    console.print()
    print_doubts(found.diagnostics)
    if not any(one.fired for one in found.diagnostics):
        console.print("Ready to record.")
