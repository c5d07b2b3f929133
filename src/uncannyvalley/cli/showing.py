"""``uncanny show`` and ``uncanny phases``: what a run folder holds, and what it says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import console, print_json, print_phases, print_table
from uncannyvalley.cli.study_tables import print_errors, show_study
from uncannyvalley.cli.suffixes import print_walk

if TYPE_CHECKING:
    from uncannyvalley.study.folder import StudyRun


def show(
    run_dir: Annotated[
        str,
        typer.Argument(
            help="A folder that uncanny run, record or train wrote.", metavar="DIR", show_default=False
        ),
    ],
    json: options.Json = False,
) -> None:
    """Say what a run or a training is, how far it came, and how its measures moved; or how far each of several came."""
    from uncannyvalley.cli.training.showing import show_trainings
    from uncannyvalley.study.folder import open_study
    from uncannyvalley.train.plan import trainings_in

    if (trainings := trainings_in(Path(run_dir))) is not None:
        show_trainings(run_dir, trainings, json)
        return
    study = open_study(run_dir)
    if study.plan is None:
        _show_run(study.runs[0], json)
    else:
        show_study(study, json)


def _show_run(one: "StudyRun", json: bool) -> None:
    from uncannyvalley.analysis.words import WORDS
    from uncannyvalley.report.suffixes.outcomes import outcome_lines
    from uncannyvalley.study.progress import progress_of

    run, progress = one.run, progress_of(one)
    plan = run.plan
    missing, finished = run.missing_shards(), run.finished_shards()
    words = WORDS["image" if plan.prompts is None else "prompt"]
    about: dict[str, Any] = {
        "folder": str(run.path), "key": plan.key, "complete": not missing,
        "shards": f"{len(finished)} of {plan.shard_count}",
        "model": plan.model.spec, "data": f"{plan.data.spec} ({plan.data.examples} {words.many})",
        "attack": f"{plan.attack.name} {plan.attack.settings}",
        "steps": _length(run) if finished else plan.recording.steps, "restarts": plan.recording.restarts, "seed": plan.recording.seed,
        "seconds": round(progress.seconds, 1), "controls": ", ".join(run.controls()) or "none",
    }  # fmt: skip
    if outcomes := outcome_lines(run):
        about["outcomes"] = "; ".join(outcomes)
    rows = _medians(run) if finished else []
    if json:
        names = ("measure", "unit", "clean", "highest", "last")
        medians = [dict(zip(names, row, strict=True)) for row in rows]
        print_json({**about, "failed": dict(progress.errors), "medians": medians})
        return
    print_table(f"Run {run.path}", ["", ""], [[name, str(value)] for name, value in about.items()], left=2)
    print_errors(progress.errors)
    if rows:
        console.print()
        header = ["median of", "unit", words.start_point.removeprefix("the "), "highest", "last step"]
        print_table(
            "Measures", header, [[*row[:2], *(f"{value:.4g}" for value in row[2:])] for row in rows], left=2
        )


def _length(run: Any) -> int | str:
    """Steps of a walk, or the queries of a watched attack."""
    trajectory = run.trajectory
    return f"up to {trajectory.rows} queries" if trajectory.is_observed else run.plan.recording.steps


def _medians(run: Any) -> list[tuple[str, str, float, float, float]]:
    """Median over examples of each measure: at step 0, at its highest step, at its last."""
    from uncannyvalley.analysis.curves import curve

    trajectory = run.trajectory.of_examples()
    curves = [curve(trajectory, name) for name in trajectory.measures]
    return [
        (one.measure, one.unit, float(one.median[0]), float(one.median.max()), float(one.median[-1]))
        for one in curves
        if len(one.median)  # a soft prompt's suffix has no perplexity
    ]


def phases(
    run_dir: options.RunDir,
    restart: Annotated[int, typer.Option(help="Which of several restarts.")] = 0,
    examples: Annotated[
        bool, typer.Option("--examples", help="One row for each example (as JSON with --json).")
    ] = False,
    json: options.Json = False,
) -> None:
    """Print the phases of a run beside its controls: ridge, flip, valley, and what each change is made of."""
    from uncannyvalley.analysis.reading import reading
    from uncannyvalley.report.pages.report_page import phases_of
    from uncannyvalley.run.folder import open_run

    run = open_run(run_dir)
    found = phases_of(run, restart)
    summary = found.summary()
    if json:
        rows = {"examples": found.records()} if examples else {}
        print_json({**summary.to_dict(), "reading": reading(summary), **rows})
        return
    if examples:
        label = [] if summary.subject == "prompt" else ["label"]
        shown = ("example", *label, "flip_step", "ridge_step", "ridge_height", "valley_step", "depth")
        cells = [
            ["–" if row[name] is None else f"{row[name]:.4g}" for name in shown] for row in found.records()
        ]
        print_table("Examples", shown, cells)
        console.print()
    if summary.subject == "prompt":
        print_walk(run, found)
        return
    print_phases(summary)
    console.print()
    console.print(reading(summary))
