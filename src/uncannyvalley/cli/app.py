"""``uncanny``: the commands by name."""

from typing import Annotated

import typer

from uncannyvalley import __version__
from uncannyvalley.cli import (
    bounding,
    checking,
    comparing,
    demonstrating,
    detecting,
    drawing,
    listing,
    measuring,
    planning,
    recorder,
    replaying,
    reporting,
    results,
    running,
    showing,
    training,
    verifying,
)
from uncannyvalley.cli.guard import guarded

app = typer.Typer(
    name="uncanny",
    help="See how the loss surface bends while an input is attacked: every step, exactly.\n\n"
    "Start with: uncanny demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(guarded(demonstrating.demo))
app.command("record")(guarded(recorder.record))
app.command("train")(guarded(training.train))
app.command("plan")(guarded(planning.plan))
app.command("run")(guarded(running.run))
app.command("show")(guarded(showing.show))
app.command("verify")(guarded(verifying.verify))
app.command("results")(guarded(results.results))
app.command("phases")(guarded(showing.phases))
app.command("compare")(guarded(comparing.compare))
app.command("report")(guarded(reporting.report))
app.command("figure")(guarded(drawing.figure))
app.command("replay")(guarded(replaying.replay))
app.command("measure")(guarded(measuring.measure))
app.command("certify")(guarded(bounding.certify))
app.command("bound")(guarded(bounding.bound))
app.command("check")(guarded(checking.check))
app.command("list")(guarded(listing.list_names))
app.add_typer(detecting.detect, name="detect")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"uncanny {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """See how the loss surface bends while an input is attacked: every step, exactly.

    Start with: uncanny demo
    """


def main() -> None:
    """Run the command line."""
    app()
