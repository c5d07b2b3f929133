"""Options of ``uncanny train``; None where one was not given, so that a plan file and an option can't contradict."""

from pathlib import Path
from typing import Annotated

import typer

PlanFile = Annotated[
    Path | None,
    typer.Argument(
        help="A plan file (TOML) of several trainings, in place of the options.",
        metavar="[PLAN]",
        show_default=False,
    ),
]
Out = Annotated[
    str,
    typer.Option(
        help="Folder of the training, or of all trainings of a plan; the same command goes on where it stopped.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="family:NAME, a folder that uncanny train wrote, path/to/file.py:callable (the file is run), or any of: "
        "uncanny list models. family:small-cnn if left out."
    ),
]
Weights = Annotated[
    str | None, typer.Option(help="Weights to begin with: FILE.safetensors or a weights-only FILE.pt.")
]
Head = Annotated[str | None, typer.Option(help="linear, as the network has it, or cosine, a new one.")]
HeadName = Annotated[str | None, typer.Option(help="Name of the linear head; found by itself if left out.")]
Scale = Annotated[float | None, typer.Option(help="Scale of a cosine head, in nats; 10 if left out.")]
Data = Annotated[
    str | None, typer.Option(help="Images to train on (see: uncanny list data); digits:train if left out.")
]
Validation = Annotated[
    str | None,
    typer.Option(help="Images to select the network by; a share of the training images if left out."),
]
ValidationShare = Annotated[
    float | None, typer.Option(help="Share of the training images to select by; 0.1 if left out, 0: none.")
]
Test = Annotated[str | None, typer.Option(help="Images that the finished network is judged on.")]
Objective = Annotated[
    str | None,
    typer.Option(
        help="erm, pgd-at+log-flatness, …: a base and wrappers (see: uncanny list objectives); erm if left out."
    ),
]
ObjectiveArg = Annotated[
    list[str], typer.Option(help="name=value, such as eps=8/255 or weight=0.1; repeatable.")
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images; 20 if left out.")]
BatchSize = Annotated[
    int | None, typer.Option(help="Images of a step, on all devices together; 128 if left out.")
]
Optimizer = Annotated[str | None, typer.Option(help="sgd (Nesterov) or adamw; sgd if left out.")]
LearningRate = Annotated[float | None, typer.Option(help="Its largest value; 0.1 if left out.")]
Momentum = Annotated[float | None, typer.Option(help="Of sgd; 0.9 if left out.")]
WeightDecay = Annotated[float | None, typer.Option(help="5e-4 if left out.")]
Schedule = Annotated[
    str | None, typer.Option(help="cosine, one-cycle, constant or piecewise; cosine if left out.")
]
Clip = Annotated[float | None, typer.Option(help="Largest length of the gradient; no limit if left out.")]
Crop = Annotated[
    int | None,
    typer.Option(help="Random crops of images extended by so many reflected pixels; 0 if left out."),
]
Mirror = Annotated[bool, typer.Option("--mirror", help="Mirror half of the images.")]
Selection = Annotated[
    str | None,
    typer.Option(
        help="robust, clean or last; robust for adversarial objectives, clean for others, if left out."
    ),
]
EvaluationNorm = Annotated[
    str | None, typer.Option(help="linf or l2, of the attack at validation; the objective's if left out.")
]
EvaluationEps = Annotated[
    str | None,
    typer.Option(help="Its radius; the objective's if left out, or 8/255 (l2: 0.5). 0: no attack."),
]
EvaluationSteps = Annotated[int | None, typer.Option(help="Its steps of 2.5 eps/steps; 10 if left out.")]
EvaluationExamples = Annotated[
    int | None, typer.Option(help="Validation images looked at, at most; 1000 if left out.")
]
EvaluateEvery = Annotated[int | None, typer.Option(help="Epochs from one look to the next; 1 if left out.")]
CheckpointEvery = Annotated[float | None, typer.Option(help="Seconds between checkpoints; 60 if left out.")]
Seed = Annotated[
    int | None,
    typer.Option(help="Seed of the weights, the order, crops, attacks and held-out images; 0 if left out."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Devices = Annotated[
    int, typer.Option(help="Processes that train together, one a device; decides how a batch is split.")
]
Precision = Annotated[str | None, typer.Option(help="32-true, 64-true or bf16-mixed; 32-true if left out.")]
Loggers = Annotated[
    list[str], typer.Option("--logger", help="csv or tensorboard, beside log.csv; repeatable.")
]
Part = Annotated[str, typer.Option(help="K/N: only every N-th training of a plan, for job arrays.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say which trainings there are and how long they take; train nothing."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another training in the folder.")]
