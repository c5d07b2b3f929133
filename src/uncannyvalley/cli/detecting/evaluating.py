"""``uncanny detect evaluate``: the worst attack, honest rates, and what baselines do on the same images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.detecting import choices
from uncannyvalley.cli.detecting.networks import given_name, open_detector
from uncannyvalley.cli.printing import console, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from uncannyvalley.detect.evaluation.evaluate import Evaluation


def evaluate(
    context: typer.Context,
    detector: choices.DetectorFile,
    out: choices.EvaluationFolder,
    model: choices.StoredModel = None,
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    weights: options.Weights = None,
    data: choices.HeldOut = "digits",
    skip: choices.Skip = 0,
    limit: options.Limit = None,
    attack: choices.AttackNames = [],  # noqa: B006 (typer reads it)
    suite: choices.Suite = None,
    run: choices.Runs = [],  # noqa: B006 (typer reads it)
    adaptive: choices.Adaptive = False,
    shift: choices.Shifts = [],  # noqa: B006 (typer reads it)
    norm: options.Norm = None,
    eps: options.Eps = None,
    steps: choices.OwnSteps = None,
    baselines: choices.Baselines = None,
    baseline: choices.BaselineNames = [],  # noqa: B006 (typer reads it)
    fit_data: choices.FitData = None,
    fit_limit: choices.FitLimit = None,
    fit_calibration: choices.FitCalibration = None,
    fit_calibration_limit: choices.FitLimit = None,
    known: choices.Known = [],  # noqa: B006 (typer reads it)
    prevalence: choices.Prevalence = 0.01,
    turns: choices.Turns = 3,
    seed: choices.Seed = 0,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Evaluate a detector on held-out images: attacks, worst first, false positives, everyday changes, baselines.

    Attacked images are kept in OUT/attacked: the same command goes on where it was stopped, and others with the same
    attacks are quick. The folder may be deleted.
    """
    from uncannyvalley.checks import check_count
    from uncannyvalley.cli.detecting import judging
    from uncannyvalley.cli.detecting.attack_choices import chosen
    from uncannyvalley.cli.detecting.attack_files import FOLDER, AttackFiles
    from uncannyvalley.cli.detecting.attack_images import CONTROLS, named_attacks
    from uncannyvalley.cli.detecting.baselines import chosen_baselines
    from uncannyvalley.cli.detecting.held_out import held_out, image_sets, leaks
    from uncannyvalley.cli.given_options import command_line
    from uncannyvalley.typed_arguments import ratio
    from uncannyvalley.zoo import fingerprint

    attacks = chosen(attack, suite, default=None if run else "quick")
    compared = chosen_baselines(baselines, baseline, fit_data is not None)
    asked = judging.Asked(_accuracies(known), prevalence, check_count("--turns", turns, 0), seed)
    radius = None if eps is None else ratio(eps)
    settings: dict[str, Any] = {"norm": norm, "eps": radius, "steps": steps, "seed": seed}
    named_by = given_name(model, model_arg, weights)
    found, network = open_detector(detector, named_by, device=device, batch_size=batch_size)
    held = held_out(
        found, data, skip=skip, limit=limit, runs=run, shifts=options.pairs(shift, "--shift"), weights=fingerprint(network.net)
    )  # fmt: skip
    named, controls = (named_attacks(one, found.model, **settings) for one in (attacks, CONTROLS))
    files = AttackFiles(out / FOLDER, {"weights": fingerprint(network.net)})
    clean, calibration = (fit_data, fit_limit), (fit_calibration, fit_calibration_limit)
    with progress_bars(json, "images") as progress:
        others, notes = judging.baselines_of(compared, found, clean, calibration, progress)
        sets = image_sets(found, held, named, controls, norm, seed, files, progress)
    doubts = [*held.notes, *notes, *leaks(found, held)]
    doubts += judging.add_adaptive(found, held, sets, settings, files, wanted=adaptive, quiet=json)
    result = judging.judged(found, others, held, sets, asked, quiet=json)
    doubts += judging.doubts_of(result)
    about = judging.about_evaluation(found, detector, data, skip, held, named, settings)
    _show(result, about, doubts, held.class_names, out, command=command_line(context), json=json)


def _show(
    result: "Evaluation",
    about: dict[str, Any],
    doubts: list[str],
    class_names: tuple[str, ...],
    out: Path,
    *,
    command: str,
    json: bool,
) -> None:
    """Write the files, then print tables or JSON."""
    from uncannyvalley.cli.detecting import judging
    from uncannyvalley.cli.detecting.evaluation_files import write_evaluation

    files = write_evaluation(
        result, judging.NAME, out, about=about, doubts=doubts, class_names=class_names, command=command
    )
    if json:
        print_json({"about": about, "doubts": doubts, "files": files, **result.to_json()})
    else:
        _print(result, doubts, files)


def _accuracies(texts: list[str]) -> dict[float, float]:
    from uncannyvalley.typed_arguments import ratio

    return {ratio(eps): ratio(accuracy) for eps, accuracy in options.pairs(texts, "--known").items()}


def _print(found: "Evaluation", doubts: list[str], files: dict[str, str]) -> None:
    from uncannyvalley.cli.detecting import judging
    from uncannyvalley.report.detectors.evaluation_tables import headline, shared_notes, terminal_tables

    outcome = found.detectors[judging.NAME]
    for line in headline(outcome, found.prevalence):
        console.print(line, style="bold", soft_wrap=True, markup=False)
    for table in terminal_tables(found, judging.NAME):
        console.print()
        print_table(table.title, table.header, table.rows)
        console.print(table.note, style="dim", soft_wrap=True, markup=False)
    console.print()
    for one in [*doubts, *shared_notes(found)]:
        console.print(f"note: {one}", style="yellow", soft_wrap=True, markup=False)
    for name, path in files.items():
        console.print(f"[bold]{name:>7}[/bold]  {path}", soft_wrap=True)
