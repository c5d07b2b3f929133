"""``uncanny record``: an attack on images or on prompts, step by step, beside its controls."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli import options, suffixes
from uncannyvalley.cli.printing import aside, console, print_json, print_phases, progress_bars

if TYPE_CHECKING:
    from uncannyvalley.run.folder import RunFolder
    from uncannyvalley.run.request import Request
    from uncannyvalley.study.driver import Outcome

SHOWN = 10
"""Failed shards that are named one by one."""


def record(
    context: typer.Context,
    out: Annotated[
        str,
        typer.Option(help="Folder of the run, or URL; the same command resumes it.", show_default=False),
    ],
    model: options.Model = "demo",
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    weights: options.Weights = None,
    data: options.Data = "digits",
    attack: options.Attack = "pgd",
    attack_arg: options.AttackArg = [],  # noqa: B006 (typer reads it)
    norm: options.Norm = None,
    eps: options.Eps = None,
    step_size: options.StepSize = None,
    steps: options.Steps = None,
    random_start: options.RandomStart = False,
    target: options.Target = None,
    restarts: options.Restarts = 1,
    limit: options.Limit = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    every: options.Every = 1,
    measures: options.Measures = None,
    measure: options.MoreMeasures = [],  # noqa: B006 (typer reads it)
    keep: options.Keep = None,
    keep_images: options.KeepImages = 64,
    controls: options.Controls = True,
    head: options.HeadName = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    prepare: options.Prepare = True,
    compile: options.Compile = False,
    shard_size: options.ShardSize = 256,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    prompts: suffixes.Prompts = None,
    targets: suffixes.Targets = None,
    also_model: suffixes.AlsoModel = [],  # noqa: B006
    suffix: suffixes.Suffix = None,
    universal: suffixes.Universal = False,
    chat_template: suffixes.ChatTemplate = "auto",
    system: suffixes.System = None,
    judge: suffixes.Judge = None,
    new_tokens: suffixes.NewTokens = 32,
) -> None:
    """Record every step of an attack with exact sharpness, and draw the walk beside its controls."""
    chosen = options.with_more(measures, measure)
    on_line = suffixes.given(context)
    if suffixes.is_of_prompts(on_line, model):
        from uncannyvalley.llm.request import SuffixRequest

        more = options.pairs(attack_arg, "--attack-arg")
        more |= {} if step_size is None else {"step_size": step_size}
        asked = SuffixRequest(
            model=model, prompts=prompts or "", targets=targets, more_models=tuple(also_model),
            attack=attack if "attack" in on_line else "gcg", attack_arguments=more, steps=steps, suffix=suffix, universal=universal,
            template=chat_template, system=system, limit=limit, seed=seed, restarts=restarts, measures=chosen,
            batch_size=batch_size, device=device, dtype=dtype, every=every, new_tokens=new_tokens, judge=judge,
        )  # fmt: skip
        say_failures(suffixes.record_suffixes(asked, out, controls=controls, overwrite=overwrite, json=json))
        return

    from uncannyvalley.run.request import Request
    from uncannyvalley.typed_arguments import ratio

    request = Request(
        model=model, model_arguments=options.pairs(model_arg), weights=weights, data=data, attack=attack,
        attack_arguments=options.pairs(attack_arg, "--attack-arg"), norm=norm,
        eps=None if eps is None else ratio(eps), step_size=None if step_size is None else ratio(step_size), steps=steps,
        random_start=random_start, target=target, restarts=restarts, seed=seed, every=every,
        measures=chosen, limit=limit, batch_size=batch_size, keep=keep, keep_images=keep_images,
        head=head, device=device, dtype=dtype, prepare=prepare, compile=compile, shard_examples=shard_size,
    )  # fmt: skip
    run_and_print(request, out, controls=controls, overwrite=overwrite, json=json)


def run_and_print(request: "Request", out: str, *, controls: bool, overwrite: bool, json: bool) -> None:
    """Record, write the derived files, and say what came out and where it is."""
    from uncannyvalley.run.workbench import Workbench
    from uncannyvalley.study.recording import recorded

    workbench = Workbench()
    with ExitStack() as hold:
        with progress_bars(quiet=json) as progress:
            run, outcome = hold.enter_context(
                recorded(
                    request,
                    out,
                    controls=controls,
                    overwrite=overwrite,
                    progress=progress,
                    workbench=workbench,
                )
            )
        if not outcome.recorded and not outcome.failed and not json:
            console.print(f"{out} is complete already: nothing to record.")
        if run.is_begun:
            finish(run, json, is_new=bool(outcome.recorded))
    say_failures(outcome)


def finish(run: "RunFolder", json: bool, *, is_new: bool) -> None:
    """Phases and reading on standard output, figure and page beside the shards."""
    from uncannyvalley.analysis.reading import reading
    from uncannyvalley.report.pages.report_page import phases_of
    from uncannyvalley.report.pages.run_report import write_report, written_report

    missing = phases_missing(run)
    if missing:
        files: dict[str, Any] = {"run": str(run.path)}
        note = f"Phases need {', '.join(missing)}, which --measures left out."
        print_json({"files": files, "note": note}) if json else console.print(f"{note}\nrun: {run.path}")
        return
    found = phases_of(run)
    written = (None if is_new else written_report(run)) or write_report(run, found)
    summary = found.summary()
    files = {"run": str(run.path), **written.named()}
    if json:
        print_json({"key": run.plan.key, "files": files, **summary.to_dict(), "reading": reading(summary)})
        return
    print_phases(summary)
    console.print()
    console.print(reading(summary))
    console.print()
    for name, path in files.items():
        console.print(f"[bold]{name:>7}[/bold]  {path}", soft_wrap=True)


def say_failures(outcome: "Outcome") -> None:
    """Notices and failed shards on standard error; exit code 1 where a shard failed."""
    from uncannyvalley.run.plan import shard_name

    for notice in outcome.notices:
        aside.print(notice, style="yellow", soft_wrap=True)
    for report in outcome.failed[:SHOWN]:
        failure = report.failure or {}
        aside.print(
            f"failed: {report.place}/shards/{shard_name(report.shard)} after {failure['attempts']} attempts: {failure['error']}",
            style="red", markup=False, soft_wrap=True,
        )  # fmt: skip
    if outcome.failed:
        if len(outcome.failed) > SHOWN:
            aside.print(f"… and {len(outcome.failed) - SHOWN} more; uncanny show lists them", style="red")
        aside.print("The others were recorded. The same command tries the failed ones again.")
        raise typer.Exit(1)


def phases_missing(run: "RunFolder") -> list[str]:
    """Measures that phases need and the run does not have."""
    from uncannyvalley.analysis.phase_table import NEEDED

    return [name for name in NEEDED if name not in run.plan.recording.measures]
