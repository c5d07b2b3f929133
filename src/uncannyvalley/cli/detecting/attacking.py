"""``uncanny detect attack``: attackers who know the detector, and how far their failures can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.detecting import choices
from uncannyvalley.cli.detecting.networks import check_shape, given_name, open_detector
from uncannyvalley.cli.detecting.promise import percent
from uncannyvalley.cli.detecting.sources import labelled
from uncannyvalley.cli.printing import console, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from torch import Tensor

    from uncannyvalley.detect.adaptive import AdaptiveTable
    from uncannyvalley.detect.image_detector import ImageDetector

DRAWS_HELP = "Draws of the detector's noise over which white boxes average, 1 to 4."


def attack(
    detector: choices.DetectorFile,
    model: choices.StoredModel = None,
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    weights: options.Weights = None,
    data: choices.HeldOut = "digits",
    skip: choices.Skip = 0,
    limit: options.Limit = 100,
    attacker: Annotated[
        list[str],
        typer.Option(help="Name of an attacker, such as orthogonal or square; repeatable; all if left out."),
    ] = [],  # noqa: B006 (typer reads it)
    norm: choices.Norm = "linf",
    eps: choices.Eps = None,
    steps: Annotated[int, typer.Option(help="Steps of each walk.")] = 40,
    draws: Annotated[int, typer.Option(help=DRAWS_HELP)] = 1,
    knows_seed: Annotated[
        bool,
        typer.Option(
            "--knows-seed/--other-seeds", help="Whether the detector's own noise is among these draws."
        ),
    ] = True,
    restarts: Annotated[int, typer.Option(help="Walks of each attacker from each image.")] = 1,
    queries: Annotated[int, typer.Option(help="Questions of the black box about each image.")] = 500,
    doubt: Annotated[
        bool,
        typer.Option("--doubt/--no-doubt", help="Attack a few images again with more effort, as a check."),
    ] = True,
    seed: choices.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file of the table.", show_default=False)] = None,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Attack network and detector at once: success is misclassified and not flagged, at the promised threshold.

    Only images count that are right and not flagged to begin with. Attackers see the detector's whole score and its
    gradient, but for the black box, which asks for answers alone.
    """
    found, _network = open_detector(
        detector, given_name(model, model_arg, weights), device=device, batch_size=batch_size
    )
    x, y, _ = labelled(data, found.model.classes, limit=limit, skip=skip)
    check_shape(found, x, data)
    settings: dict[str, Any] = {
        "norm": norm, "eps": radius(norm, eps), "steps": steps, "draws": draws, "knows_seed": knows_seed,
        "restarts": restarts, "queries": queries,
    }  # fmt: skip
    table = run_attackers(found, x, y, attacker, settings, seed=seed, doubt=doubt, quiet=json)
    content = {"detector": detector, "data": data, "skip": skip} | table.to_json()
    if out is not None:
        write_json(out, content)
    if json:
        print_json(content)
        return
    print_adaptive(table)
    if out is not None:
        console.print(f"[bold]  table[/bold]  {out}", soft_wrap=True)


def run_attackers(
    detector: "ImageDetector",
    x: "Tensor",
    y: "Tensor",
    names: list[str],
    settings: dict[str, Any],
    *,
    seed: int,
    doubt: bool = True,
    quiet: bool = False,
) -> "AdaptiveTable":
    """The named attackers, or all, with a bar over images and attackers; InputError for unknown names."""
    from uncannyvalley.detect.adaptive import attack_detector, attackers
    from uncannyvalley.errors import unknown_name

    known = attackers(detector, clean=x, **settings)
    for name in names:
        if name not in known:
            raise unknown_name("attacker", name, known)
    chosen = {name: one for name, one in known.items() if not names or name in names}
    total = len(x) * len(chosen)
    with progress_bars(quiet, "images") as progress:
        return attack_detector(
            detector, x, y, attackers=chosen, clean=x, seed=seed, doubt=doubt,
            progress=progress("attacking", total) if progress else None, **settings,
        )  # fmt: skip


def radius(norm: str, eps: str | None) -> float:
    """The radius asked for, or the usual one of the norm."""
    from uncannyvalley.errors import unknown_name
    from uncannyvalley.run.named_attack import EPS
    from uncannyvalley.typed_arguments import ratio

    if norm not in EPS:
        raise unknown_name("norm", norm, EPS)
    return EPS[norm] if eps is None else ratio(eps)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON file, whole or not at all."""
    import json

    from uncannyvalley.storing.files import cannot_write, write_text

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_text(path, json.dumps(content, indent=1, allow_nan=False))


def print_adaptive(table: "AdaptiveTable") -> None:
    """Success of each attacker with intervals, then the doubts that fired."""
    rows = [
        [
            one.attacker, one.sees.removesuffix(" box") if one is not table.headline else "",
            *(percent(rate.count, rate.out_of) for rate in (one.success, one.misclassified, one.flagged)),
            f"{one.forwards + one.backwards:.0f}", "" if one.trustworthy else "!",
        ]
        for one in (*table.rows, table.headline)
    ]  # fmt: skip
    console.print(
        f"{table.attacked} of {table.given} images are attacked: {table.wrong} are misclassified and {table.flagged} flagged before "
        "any attack, and do not count.",
        soft_wrap=True,
    )
    header = ["attacker", "sees", "success %", "fooled %", "of these flagged", "passes", ""]
    print_table("Attackers who know the detector", header, rows, left=2)
    console.print(
        "Success: misclassified and not flagged, with 95 % intervals; fooled: misclassified at some point; flagged: of these, where the best "
        "point found is. Passes: forwards and backwards an image. !: doubted, the success is probably too low.",
        style="dim",
        soft_wrap=True,
    )
    console.print()
    for one in (*table.rows, table.headline):
        for doubt in one.diagnostics:
            if doubt.fired:
                console.print(
                    f"warning: {one.attacker}: {doubt}", style="yellow", soft_wrap=True, markup=False
                )
    for note in table.notes:
        console.print(f"- {note}", style="dim", soft_wrap=True, markup=False)
    console.print(
        "A success of 0 says what these attackers could not do, not that no attacker can.",
        style="dim",
        soft_wrap=True,
    )
