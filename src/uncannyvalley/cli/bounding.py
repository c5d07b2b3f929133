"""``uncanny certify`` and ``uncanny bound``: what is proved, and apart from it what was only estimated."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.given_options import command_line
from uncannyvalley.cli.kept_proofs import keep_bounds, keep_radii, keep_with_run, print_files
from uncannyvalley.cli.printing import console, print_json, print_table, progress_bars
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from uncannyvalley.run.bounding import LossBounds
    from uncannyvalley.run.certifying import Certificates

Out = Annotated[
    Path | None,
    typer.Option(help="Folder for the numbers (JSON, stamped) and their figure.", show_default=False),
]
BoundsOut = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the numbers (JSON, stamped) and their figure; RUN/bounds if left out.",
        show_default=False,
    ),
]


def certify(
    context: typer.Context,
    model: options.Model = "demo",
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    weights: options.Weights = None,
    data: options.Data = "digits",
    limit: options.Limit = 64,
    certificate: Annotated[
        bool,
        typer.Option(
            "--certificate/--estimate-only", help="Leave the certificate out where an operation has no rule."
        ),
    ] = True,
    attack: Annotated[
        bool, typer.Option("--attack/--no-attack", help="Also find the radius at which PGD flips each image.")
    ] = True,
    steps: Annotated[int, typer.Option(help="Steps of that attack, in each of its balls.")] = 40,
    seed: Annotated[int, typer.Option(help="Seed of the attack's random starts.")] = 0,
    out: Out = None,
    head: options.HeadName = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    json: options.Json = False,
) -> None:
    """Certify L2 radii inside which no change of the pixels can change the label.

    The radius is the exact distance to the decision boundary in feature space over a certified Lipschitz constant of
    the features. What a sampled constant would give stands apart: it promises nothing.
    """
    from uncannyvalley.run.certifying import certify_images
    from uncannyvalley.run.request import Request

    request = Request(
        model=model, model_arguments=options.pairs(model_arg), weights=weights, data=data, limit=limit, head=head, seed=seed,
        device=device, dtype=dtype,
    )  # fmt: skip
    with progress_bars(quiet=json) as progress:
        found = certify_images(
            request, certificate=certificate, attack=attack, steps=steps, progress=progress
        )
    files = {}
    if out is not None:
        about = {
            "model": model,
            "data": data,
            "limit": limit,
            "seed": seed,
            "steps of the attack": steps if attack else "none",
        }
        files = keep_radii(found, out, about, command_line(context))
    if json:
        print_json({**found.to_dict(), "files": files})
        return
    _print_certificates(found)
    print_files(files)


def _print_certificates(found: "Certificates") -> None:
    content = found.to_dict()
    certified, sampled = found.constants
    rows = [
        [
            one["radius"],
            one["status"],
            *("–" if one[q] is None else f"{one[q]:.4g}" for q in ("q10", "q50", "q90")),
        ]
        for one in content["radii"]
    ]
    print_table(
        f"L2 radii of the {content['correct']} of {content['images']} images that are classified correctly",
        ["radius", "status", "10 %", "median", "90 %"], rows, left=2,
    )  # fmt: skip
    console.print()
    shown = "none" if certified is None else f"{certified.value:.4g}"
    console.print(f"Lipschitz constant of the features: certified {shown}, sampled {sampled.value:.4g}")
    if certified is not None:
        largest = sorted(certified.factors, key=lambda one: -one[1])[:5]
        console.print("Largest factors: " + ", ".join(f"{name} {factor:.3g}" for name, factor in largest))
    if (ratio := found.ratio()) is not None:
        console.print(
            f"Median certified / attacked radius: {ratio:.3g}. Flipped inside the certified radius: {found.violations} of "
            f"{content['certified_above_zero']}"
        )
    for one in content["assumptions"]:
        console.print(f"[dim]- {one}[/dim]", soft_wrap=True)


def bound(
    context: typer.Context,
    run_dir: Annotated[
        str | None, typer.Argument(help="A folder that uncanny record wrote.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model of the run, named again; or a model to bound on --data without a run."),
    ] = None,
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    data: Annotated[
        str | None, typer.Option(help="Images to walk on, where no run is given.", show_default=False)
    ] = None,
    limit: options.Limit = 64,
    eps: Annotated[str, typer.Option(help="Radius of the L2 walk, where no run is given.")] = "0.5",
    steps: Annotated[int, typer.Option(help="Steps of that walk.")] = 10,
    out: BoundsOut = None,
    json: options.Json = False,
) -> None:
    """Hold the flatness bound on the loss against a walk: from gradient, sharpness and third derivative at the head.

    With a run: its recorded iterates, and the numbers are kept with it. With --model and --data: a fresh PGD walk in L2.
    """
    from uncannyvalley.typed_arguments import ratio

    arguments, command = options.pairs(model_arg), command_line(context)
    if run_dir is None:
        found = _bounds_of_walk(model, arguments, data, limit, ratio(eps), steps)
        about = {
            "model": model,
            "data": data or "digits",
            "limit": limit,
            "walk": f"PGD, L2 ball of {eps}, {steps} steps",
        }
        files = {} if out is None else keep_bounds(found, out, about, command)
    else:
        found, files = _bounds_of_run(run_dir, model, arguments, data, out, command)
    if json:
        print_json({**found.to_dict(), "files": files})
        return
    _print_bounds(found)
    print_files(files)


def _print_bounds(found: "LossBounds") -> None:
    header = ["step", "|δ|", "loss change", "bound", "tightest", "broken", "with sampled L", "broken"]
    rows = [
        [
            str(int(one["step"])), f"{one['distance']:.3g}", f"{one['change']:.3g}", f"{one['certified']:.3g}",
            f"{one['certified_tightness']:.2g}", str(one["certified_broken"]), f"{one['estimated']:.3g}",
            str(one["estimated_broken"]),
        ]
        for one in found.steps()
    ]  # fmt: skip
    print_table(
        "Loss change and its bound, medians over images (nats; tightest: largest change/bound)", header, rows
    )
    console.print()
    certified, sampled = found.constants
    console.print(
        f"Lipschitz constant of the features: certified {certified.value:.4g}, sampled {sampled.value:.4g} (no promise)"
    )


def _bounds_of_run(
    run_dir: str,
    model: str | None,
    arguments: dict[str, str],
    data: str | None,
    out: Path | None,
    command: str,
) -> "tuple[LossBounds, dict[str, str]]":
    """The bounds of a recorded walk, and the files they are kept in."""
    from uncannyvalley.run.bounding import bound_run
    from uncannyvalley.run.folder import open_run

    if data is not None:
        raise InputError("give a run folder or --data, not both: a run has its images")
    run = open_run(run_dir)
    found = bound_run(run, model, arguments)
    about = {"model": run.plan.model.spec, "data": run.plan.data.spec, "key of the run": run.plan.key}
    if out is not None:
        return found, keep_bounds(found, out, about, command)
    return found, keep_with_run(run, found, about, command)


def _bounds_of_walk(
    model: str | None, arguments: dict[str, str], data: str | None, limit: int | None, eps: float, steps: int
) -> "LossBounds":
    from uncannyvalley.run.bounding import bound_walk
    from uncannyvalley.run.request import Request

    if model is None:
        raise InputError("give a run folder, or --model (and --data) to bound a fresh walk")
    request = Request(
        model=model, model_arguments=arguments, data=data or "digits", limit=limit, norm="l2", eps=eps,
        steps=steps, prepare=False,
    )  # fmt: skip
    return bound_walk(request)
