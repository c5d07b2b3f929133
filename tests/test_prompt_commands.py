"""Prompts on the command line: what goes together, what is printed, what is written, how it ends."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

import uncannyvalley as uv
from folders import uncanny
from pages import Reader
from uncannyvalley.report.pages.command import command_of
from uncannyvalley.run.folder import open_run

MODEL = "hf-lm:nowhere"


def refused(*arguments: str | Path) -> str:
    """The one message of a recording that ends with exit code 2."""
    ended = uncanny("record", *arguments, code=2)
    assert ended.stdout == ""
    return " ".join(ended.stderr.split())


def test_options_of_images_are_refused_beside_prompts(tmp_path: Path) -> None:
    """All of them in one message, each as it was written."""
    said = refused(
        "--model", MODEL, "--prompts", "some.csv", "--eps", "0.1", "--norm", "l2", "--no-prepare", "--keep-images", "3",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert (
        said
        == "uncanny: --norm, --eps, --keep-images and --prepare go with images, not with --prompts; leave them out"
    )
    one = refused("--model", MODEL, "--prompts", "some.csv", "--data", "digits", "--out", tmp_path / "run")
    assert one.endswith("--data goes with images, not with --prompts; leave it out")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "given",
    [("--suffix", "! !"), ("--universal",), ("--also-model", "x"), ("--judge", "a:b"), ("--system", "s")],
)
def test_options_of_prompts_are_refused_without_them(given: tuple[str, ...], tmp_path: Path) -> None:
    assert (
        refused(*given, "--out", tmp_path / "run")
        == f"uncanny: {given[0]} goes with --prompts FILE.csv, which is missing"
    )


def test_a_default_is_no_choice(tmp_path: Path) -> None:
    """An option that was not written stands in nobody's way."""
    said = refused("--model", MODEL, "--prompts", tmp_path / "none.csv", "--out", tmp_path / "run")
    assert "leave" not in said
    assert "none.csv" in said or "nowhere" in said


def test_a_language_model_and_its_prompts_need_each_other(tmp_path: Path) -> None:
    assert "give what it is asked with --prompts" in refused("--model", MODEL, "--out", tmp_path / "run")
    assert "--model hf-lm:NAME_OR_FOLDER" in refused("--prompts", "some.csv", "--out", tmp_path / "run")


def test_lists_name_what_moves_suffixes_and_what_reads_them() -> None:
    listed = uncanny("list", "attacks", "--json")
    attacks = {one["name"]: one["description"] for one in json.loads(listed.stdout)}
    assert "search_width=512, topk=256, n_replace=1" in attacks["gcg"]
    assert "n_replace=1" in attacks["random-tokens"]
    assert "step_size=" in attacks["soft-prompt"]
    models = json.loads(uncanny("list", "models", "--json").stdout)
    assert "hf-lm:NAME_OR_FOLDER" in {one["form"] for one in models}


# --- on a real model --------------------------------------------------------------------------------

PROMPTS = """goal,target
Once upon a time there was a,dog
"Tom and <b>Sue</b> went [bold]to the",park
"""
STEPS = 6


@pytest.fixture(scope="module")
def asked(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of a short run on two prompts, one of them with markup in it."""
    prompts = tmp_path_factory.mktemp("prompts") / "two prompts.csv"
    prompts.write_text(PROMPTS)
    return [
        "--model", f"hf-lm:{shared}/models/stories260k", "--prompts", str(prompts), "--attack-arg", "search_width=8",
        "--steps", str(STEPS), "--suffix", "! ! ! !", "--new-tokens", "5",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def recorded(asked: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run judged by a function of the user's, and what was printed."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "judges.py").write_text(
        "def long_enough(goal, completion):\n    return len(completion) / 1000 > 2\n"
    )
    ended = uncanny(
        "record", *asked, "--judge", f"{folder / 'judges.py'}:long_enough", "--out", folder / "run"
    )
    return folder / "run", ended.stdout


@pytest.mark.shared
def test_a_recording_says_what_came_out(recorded: tuple[Path, str]) -> None:
    folder, said = recorded
    for part in (
        "gcg", "random-tokens", "soft-prompt", "target is greedy", "A prompt's loss is the mean",
        "Prompt 0: Once upon a time there was a → dog", "Prompt 1: Tom and <b>Sue</b> went [bold]to the → park",
        "target match: ", " of 2", "attack success (judge ", "long_enough): 0 of 2",
    ):  # fmt: skip
        assert part in said, part
    match, success = (
        next(line for line in said.splitlines() if line.startswith(one))
        for one in ("target match", "attack success")
    )
    assert "judge" not in match
    assert "match" not in success
    names = ("phases.parquet", "walk.png", "report.html", "completions.json", "test_cases.json")
    for name in names:
        assert (folder / name).is_file()
        assert str(folder / name) in said
    assert uncanny("verify", folder).stdout.endswith("Every byte is as it was written.\n")


@pytest.mark.shared
def test_the_page_of_a_run_is_about_prompts(recorded: tuple[Path, str]) -> None:
    page = (recorded[0] / "report.html").read_text()
    for part in (
        "Suffixes along the walk", "Tom and &lt;b&gt;Sue&lt;/b&gt;", "the starting suffix", "target match: ", "(2 prompts, SHA-256",
        "--chat-template auto", "stories260k",
    ):  # fmt: skip
        assert part in page, part
    seen = Reader(page)
    assert all(one.startswith(("data:", "#")) for one in seen.addresses)
    for part in ("images", "http://", "https://", "<script"):
        assert part not in seen.text, part


@pytest.mark.shared
def test_the_same_command_finds_it_complete_and_prints_json(
    recorded: tuple[Path, str], asked: list[str]
) -> None:
    folder, _ = recorded
    before = {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}
    found = json.loads(uncanny("record", *asked, "--out", folder, "--json").stdout)
    assert next(walk["name"] for walk in found["walks"]) == "gcg"
    assert found["subject"] == "prompt"
    assert found["target_match"]["of"] == 2
    assert found["attack_success"]["prompts"] == 0
    assert set(found["files"]) == {"run", "phases", "figure", "report", "completions", "test_cases"}
    assert "complete already" in uncanny("record", *asked, "--out", folder).stdout
    assert {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()} == before


@pytest.mark.shared
def test_another_judge_reads_the_same_answers(
    recorded: tuple[Path, str], asked: list[str], tmp_path: Path
) -> None:
    """Nothing is recorded again; completions and page speak of the new judge, and the folder stays without a fault."""
    folder = tmp_path / "run"
    shutil.copytree(recorded[0], folder)
    said = uncanny(
        "record", *asked, "--judge", "uncannyvalley.llm.judging:no_refusal", "--out", folder
    ).stdout
    assert "complete already" in said
    assert "attack success (judge uncannyvalley.llm.judging:no_refusal): 2 of 2" in said
    assert "no_refusal): 2 of 2" in (folder / "report.html").read_text()
    old, new = (
        [
            one["generation"]
            for cases in json.loads((place / "completions.json").read_text()).values()
            for one in cases
        ]
        for place in (recorded[0], folder)
    )
    assert old == new
    assert "no faults" in uncanny("verify", folder).stdout


@pytest.mark.shared
def test_the_command_on_the_page_makes_the_same_run(recorded: tuple[Path, str]) -> None:
    """Its key stands in the folder, so the folder takes it for the same run and records nothing."""
    command = command_of(open_run(recorded[0]))
    program, *words = shlex.split(command)
    assert program == "uncanny"
    place = words.index("--out") + 1
    assert words[place] == "run"
    assert "complete already" in uncanny(*words[:place], recorded[0]).stdout


@pytest.mark.shared
def test_a_run_of_prompts_is_shown_as_one(recorded: tuple[Path, str]) -> None:
    shown = uncanny("show", recorded[0]).stdout
    for part in ("starting suffix", "target_loss", "log_perplexity", "target match: "):
        assert part in shown, part
    assert "image" not in shown
    plain = json.loads(uncanny("show", recorded[0], "--json").stdout)
    assert plain["data"].endswith("(2 prompts)")  # in the table a long path breaks the line
    medians = {one["measure"]: one for one in plain["medians"]}
    assert medians["distance_tokens"]["clean"] == 0 < medians["distance_tokens"]["last"]
    soft = uncanny("show", recorded[0] / "controls" / "soft-prompt").stdout
    assert "log_perplexity" not in soft


@pytest.mark.shared
def test_the_phases_of_prompts(recorded: tuple[Path, str]) -> None:
    said = uncanny("phases", recorded[0], "--examples").stdout
    assert "Prompt 0: Once upon a time" in said
    assert "label" not in said.splitlines()[1]
    found = json.loads(uncanny("phases", recorded[0], "--examples", "--json").stdout)
    assert [one["example"] for one in found["examples"]] == [0, 1]
    assert all(one["steps"] == STEPS for one in found["examples"])


@pytest.mark.shared
def test_a_run_of_prompts_is_a_row_of_results(recorded: tuple[Path, str]) -> None:
    row = json.loads(uncanny("results", recorded[0], "--json").stdout)["runs"][0]
    summary = uv.phases(open_run(recorded[0]).trajectory).own_summary
    assert (row["attack"], row["examples"]) == ("gcg", 2)
    assert row["flipped"] == summary.flipped.value
    assert row["depth"] == summary.depth.value


@pytest.mark.shared
def test_runs_of_prompts_side_by_side(recorded: tuple[Path, str]) -> None:
    folder = recorded[0]
    said = uncanny("compare", folder, folder / "controls" / "soft-prompt").stdout
    assert "target is greedy" in said
    assert "soft-prompt" in said


@pytest.mark.shared
def test_a_soft_prompt_by_itself(asked: list[str], tmp_path: Path) -> None:
    words = [one for one in asked if one not in ("--attack-arg", "search_width=8")]
    said = uncanny(
        "record", *words, "--attack", "soft-prompt", "--step-size", "0.3", "--no-controls", "--limit", "1", "--out", tmp_path / "run"
    ).stdout  # fmt: skip
    assert "continuous" in said
    assert "completions.json" not in said
    assert open_run(tmp_path / "run").plan.attack.settings["step_size"] == 0.3
    assert "Prompt 1" not in said


@pytest.mark.shared
def test_without_sharpness_there_are_no_phases(asked: list[str], tmp_path: Path) -> None:
    said = uncanny(
        "record", *asked, "--measures", "loss", "--no-controls", "--limit", "1", "--out", tmp_path / "run"
    ).stdout
    assert "Phases need log_relative_sharpness" in said
    assert "target match: " in said
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.shared
def test_settings_that_an_attack_does_not_have_are_named(asked: list[str], tmp_path: Path) -> None:
    out = ["--out", tmp_path / "run"]
    assert "width" in refused(*asked, "--attack-arg", "width=8", *out)
    assert "pgd" in refused(*asked, "--attack", "pgd", *out)
    assert not (tmp_path / "run").exists()
