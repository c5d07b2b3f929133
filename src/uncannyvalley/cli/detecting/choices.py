"""Options that the commands of ``uncanny detect`` share."""

from pathlib import Path
from typing import Annotated

import typer

DetectorFile = Annotated[
    str,
    typer.Argument(help="A file that uncanny detect fit wrote.", metavar="FILE.detector", show_default=False),
]
StoredModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The network that the detector was fitted to, as for fit; the one named in the file if left out.",
    ),
]
HeldOut = Annotated[
    str, typer.Option("--data", help="Labelled images that the detector has not seen, as for uncanny record.")
]
Skip = Annotated[
    int,
    typer.Option(
        help="Leave out the first SKIP images: those that the detector was fitted or calibrated on."
    ),
]
Norm = Annotated[str, typer.Option(help="linf or l2.")]
Eps = Annotated[
    str | None,
    typer.Option(help="Radius, in units of the input's range [0, 1]; 8/255 (l2: 0.5) if left out."),
]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
AttackNames = Annotated[
    list[str],
    typer.Option("--attack", help="NAME or NAME:SETTING=VALUE,…, such as square:queries=500; repeatable."),
]
Suite = Annotated[
    str | None,
    typer.Option(
        help="quick: our own gradient attacks, the default; standard: those of kept libraries too (takes long).",
        show_default=False,
    ),
]
Runs = Annotated[
    list[str], typer.Option("--run", help="Run folder whose kept images are one more attack; repeatable.")
]
Shifts = Annotated[
    list[str],
    typer.Option(
        "--shift",
        help="NAME=DATA: the same images in another form, row by row, such as their JPEG files; repeatable.",
    ),
]
FitData = Annotated[
    str | None,
    typer.Option(
        help="Clean images that baselines are fitted to: --data of uncanny detect fit.", show_default=False
    ),
]
EvaluationFolder = Annotated[
    Path,
    typer.Option(
        help="Folder for evaluation.json, roc.png, report.html and the attacked images.", show_default=False
    ),
]
Adaptive = Annotated[
    bool, typer.Option("--adaptive/--no-adaptive", help="Also attackers who know the detector; takes long.")
]
OwnSteps = Annotated[int | None, typer.Option(help="Steps of our own attacks; 20 if left out.")]
Baselines = Annotated[
    bool | None,
    typer.Option(
        "--baselines/--no-baselines", help="Compare with baselines; by default if --fit-data is given."
    ),
]
BaselineNames = Annotated[list[str], typer.Option("--baseline", help="Only this baseline; repeatable.")]
FitLimit = Annotated[int | None, typer.Option(help="Use only the first so many of these.")]
FitCalibration = Annotated[str | None, typer.Option(help="Their calibration images, as for fit.")]
Known = Annotated[
    list[str],
    typer.Option(
        help="EPS=ACCURACY: best robust accuracy known at a radius, for the plausibility check; repeatable."
    ),
]
Turns = Annotated[
    int, typer.Option(help="Turns of the timing beside the network's own forward; 0 measures no time.")
]
Prevalence = Annotated[float, typer.Option(help="Share of attacked images where precision is stated.")]
