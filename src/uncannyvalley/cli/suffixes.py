"""``uncanny record --prompts``: the suffix of prompts to a language model, step by step, beside its controls."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli.printing import console, print_json, print_phases, progress_bars
from uncannyvalley.cli.suffix_strips import print_strips
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from uncannyvalley.analysis.phase_table import Phases
    from uncannyvalley.llm.request import SuffixRequest
    from uncannyvalley.run.folder import RunFolder
    from uncannyvalley.study.driver import Outcome

PANEL = "Language models"

STRIPS = 3
"""Prompts whose walk is printed."""

LANGUAGE_MODEL = "hf-lm:"

OF_IMAGES = (
    "model_arg", "weights", "data", "norm", "eps", "random_start", "target", "keep", "keep_images", "head", "prepare",
    "compile", "shard_size",
)  # fmt: skip
"""Parameters of the command that mean nothing for prompts."""

OF_PROMPTS = (
    "prompts", "targets", "also_model", "suffix", "universal", "chat_template", "system", "judge", "new_tokens",
)  # fmt: skip
"""Parameters that mean nothing for images."""

Prompts = Annotated[
    str | None,
    typer.Option(
        help="CSV with the columns goal,target (AdvBench), or HarmBench's behaviours: attack --model hf-lm:NAME_OR_FOLDER on "
        "them, by gcg or another --attack on prompts; --limit takes the first of them.",
        show_default=False, rich_help_panel=PANEL,
    ),
]  # fmt: skip
Targets = Annotated[
    str | None,
    typer.Option(
        help="HarmBench's JSON of targets by BehaviorID.", show_default=False, rich_help_panel=PANEL
    ),
]
AlsoModel = Annotated[
    list[str],
    typer.Option(
        help="One more model that the suffix must move, with the same tokenizer; repeatable.",
        rich_help_panel=PANEL,
    ),
]
Suffix = Annotated[
    str | None,
    typer.Option(
        help="Where the suffix starts; exclamation marks if left out.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Universal = Annotated[
    bool, typer.Option("--universal", help="One suffix for all prompts together.", rich_help_panel=PANEL)
]
ChatTemplate = Annotated[
    str,
    typer.Option(
        help="auto (the tokenizer's, where it has one), chat (it must have one) or plain.",
        rich_help_panel=PANEL,
    ),
]
System = Annotated[
    str | None,
    typer.Option(help="System message of the chat template.", show_default=False, rich_help_panel=PANEL),
]
Judge = Annotated[
    str | None,
    typer.Option(
        help="module:function or FILE.py:function (run here) of (goal, completion): did the attack succeed?",
        show_default=False, rich_help_panel=PANEL,
    ),
]  # fmt: skip
NewTokens = Annotated[
    int, typer.Option(help="Tokens of the greedy completions that are kept.", rich_help_panel=PANEL)
]


def given(context: typer.Context) -> set[str]:
    """Parameters that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def is_of_prompts(on_line: set[str], model: str) -> bool:
    """Whether a language model is attacked; InputError where options of both kinds came together, or one is missing."""
    if "prompts" not in on_line:
        if found := [name for name in OF_PROMPTS if name in on_line]:
            raise InputError(f"{_flags(found)} {_go(found)} with --prompts FILE.csv, which is missing")
        if model.startswith(LANGUAGE_MODEL):
            raise InputError(f"{model} is a language model: give what it is asked with --prompts FILE.csv")
        return False
    if found := [name for name in OF_IMAGES if name in on_line]:
        which = "it" if len(found) == 1 else "them"
        raise InputError(f"{_flags(found)} {_go(found)} with images, not with --prompts; leave {which} out")
    if "model" not in on_line:
        raise InputError("--prompts needs a language model: --model hf-lm:NAME_OR_FOLDER")
    return True


def _flags(names: list[str]) -> str:
    """Options as they are written."""
    flags = [f"--{name.replace('_', '-')}" for name in names]
    return flags[0] if len(flags) == 1 else f"{', '.join(flags[:-1])} and {flags[-1]}"


def _go(names: list[str]) -> str:
    return "goes" if len(names) == 1 else "go"


def record_suffixes(
    request: "SuffixRequest", out: str, *, controls: bool, overwrite: bool, json: bool
) -> "Outcome":
    """Record, write the derived files, and say what came out and where it is."""
    from uncannyvalley.llm.running import recorded_prompts

    with ExitStack() as hold:
        with progress_bars(json, "prompt-steps") as progress:
            run, outcome = hold.enter_context(
                recorded_prompts(request, out, controls=controls, overwrite=overwrite, progress=progress)
            )
        if not outcome.recorded and not outcome.failed and not json:
            console.print(f"{out} is complete already: nothing to record.", markup=False, soft_wrap=True)
        if run.is_begun:
            finish(run, json, is_new=bool(outcome.recorded) or request.judge is not None)
    return outcome


def finish(run: "RunFolder", json: bool, *, is_new: bool) -> None:
    """Phases, reading, strips and outcomes on standard output, figure and page beside the shards."""
    from uncannyvalley.analysis.phase_table import NEEDED
    from uncannyvalley.report.pages.report_page import phases_of
    from uncannyvalley.report.pages.run_report import write_report, written_report
    from uncannyvalley.report.suffixes.outcomes import model_lines, outcome_facts, outcome_lines

    files: dict[str, str] = {"run": str(run.path)}
    if missing := [name for name in NEEDED if name not in run.plan.recording.measures]:
        note = f"Phases need {', '.join(missing)}, which --measures left out."
        found = None
    else:
        note, found = "", phases_of(run)
        written = (None if is_new else written_report(run)) or write_report(run, found)
        files |= written.named()
    files |= {
        name: str(run.path / f"{name}.json")
        for name in ("completions", "test_cases")
        if (run.path / f"{name}.json").exists()
    }
    if json:
        print_json({"key": run.plan.key, "files": files, **_facts(found, note), **outcome_facts(run)})
        return
    if found is None:
        console.print(note)
    else:
        print_walk(run, found)
    for line in (*outcome_lines(run), *(model_lines(run.trajectory) if found else ())):
        console.print(line, markup=False, soft_wrap=True)
    console.print()
    for name, path in files.items():
        console.print(f"[bold]{name:>11}[/bold]  ", end="")
        console.print(path, markup=False, soft_wrap=True)


def _facts(found: "Phases | None", note: str) -> dict[str, Any]:
    from uncannyvalley.analysis.reading import reading

    if found is None:
        return {"note": note}
    summary = found.summary()
    return {**summary.to_dict(), "reading": reading(summary)}


def print_walk(run: "RunFolder", found: "Phases", strips: int = STRIPS) -> None:
    """Phases beside the controls, the reading, and the walks of the first prompts."""
    from uncannyvalley.analysis.reading import reading
    from uncannyvalley.report.suffixes.suffix_strips import suffix_strips

    summary = found.summary()
    print_phases(summary)
    console.print()
    console.print(reading(summary), markup=False)
    console.print()
    print_strips(suffix_strips(run.trajectory, found, strips))
    console.print()
