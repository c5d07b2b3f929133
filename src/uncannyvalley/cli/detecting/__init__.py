"""``uncanny detect``: whether images were pushed, by a detector with a promised false-positive rate."""

import typer

from uncannyvalley.cli.detecting import attacking, evaluating, fitting, recalibrating, scoring
from uncannyvalley.cli.guard import guarded

detect = typer.Typer(
    help="Tell pushed images from clean ones, at a false-positive rate that is promised and kept.\n\n"
    "Start with: uncanny detect fit --limit 270 --out demo.detector, then "
    "uncanny detect evaluate demo.detector --skip 270 --eps 0.2 --out evaluation",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
detect.command("fit")(guarded(fitting.fit))
detect.command("score")(guarded(scoring.score))
detect.command("recalibrate")(guarded(recalibrating.recalibrate))
detect.command("evaluate")(guarded(evaluating.evaluate))
detect.command("attack")(guarded(attacking.attack))
