"""``uncanny demo``: the uncanny valley on real digits, in under a minute."""

from typing import Annotated

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import aside
from uncannyvalley.cli.recorder import run_and_print


def demo(
    out: Annotated[str, typer.Option(help="Folder of the run.")] = "uncanny-demo",
    limit: Annotated[int, typer.Option(help="Images to walk, at most 540.")] = 256,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Record anew.")] = False,
    json: options.Json = False,
) -> None:
    """Train a small network on scikit-learn's digits (once), attack it with PGD, and show the valley."""
    from uncannyvalley import zoo
    from uncannyvalley.run.request import Request

    if not json:
        cached = (zoo.cache_folder() / f"{zoo.DEMO_RECIPE}.safetensors").exists()
        aside.print(
            "Demo network: from the cache." if cached else "Demo network: training it once (some seconds) …"
        )
    accuracy = zoo.demo_accuracy()
    if not json:
        aside.print(f"Accuracy on {len(zoo.data.digits('test'))} held-out digits: {accuracy:.1%}.")
    request = Request(
        model="demo", data="digits", eps=0.4, step_size=0.01, steps=50, limit=limit, keep="features"
    )  # so that the page has its slider, and uncanny replay its heads
    run_and_print(request, out, controls=True, overwrite=overwrite, json=json)
