"""What runs the blocks of the docs fails where a block would fail a reader, and leaves nothing out in silence."""

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from sybil import Document

from documented.blocks import blocks_of
from documented.commands import Command, commands_of, parse_only, run_block
from documented.marks import Mark, UnknownMark, indented_commands, mark_before, marks_of
from documented.pages import PAGES, Page
from documented.sizes import QUICK, small_command, small_source

REPOSITORY = Path(__file__).resolve().parents[1]
TEXTS = {file.relative_to(REPOSITORY): file.read_text() for one in PAGES for file in REPOSITORY.glob(one)}
MOST_NOT_RUN = 12


def test_blocks_that_are_not_run_are_few_and_say_why() -> None:
    reasons = {
        f"{page}: {mark.not_run}" for page, text in TEXTS.items() for mark in marks_of(text) if mark.not_run
    }
    print(*sorted(reasons), sep="\n")
    assert len(reasons) <= MOST_NOT_RUN
    assert sum(len(marks_of(text)) for text in TEXTS.values()) > 100


def test_no_command_hides_in_an_indented_block() -> None:
    found = {str(page): indented_commands(text) for page, text in TEXTS.items()}
    assert {page: lines for page, lines in found.items() if lines} == {}


def test_plan_files_on_the_pages_are_toml() -> None:
    shown = [
        one for text in TEXTS.values() for one in re.findall(r"```toml[^\n]*\n(.*?)```", text, re.DOTALL)
    ]
    assert len(shown) >= 2
    assert all(tomllib.loads(one) for one in shown)


@pytest.mark.parametrize(
    ("comment", "mark"),
    [
        ("<!-- not run: needs Slurm -->", Mark(not_run="needs Slurm")),
        ("<!-- exit code 2 -->", Mark(exit_code=2)),
        ("<!-- invisible-code-block: python\nx = 1\n-->", Mark()),
        ("<!-- not run: elsewhere -->\n\nSome text.", Mark()),
        ("", Mark()),
    ],
)
def test_marks(comment: str, mark: Mark) -> None:
    text = f"Text.\n\n{comment}\n```bash\nuncanny demo\n```\n"
    assert mark_before(text, text.index("```bash")) == mark


@pytest.mark.parametrize("comment", ["<!-- not run -->", "<!-- notrun: slow -->", "<!-- exit code -->"])
def test_a_mistyped_mark_is_an_error(comment: str) -> None:
    text = f"{comment}\n```bash\nuncanny demo\n```\n"
    with pytest.raises(UnknownMark, match="unknown mark"):
        marks_of(text)


def test_blocks_are_found_in_order_with_hidden_ones_and_files(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- invisible-code-block: python\na = 1\n-->\n\n```python\nb = a\n```\n\n```text\nno\n```\n\n"
        '```toml title="plan.toml"\nseeds = [0]\n```\n\n```bash\nuncanny list data\n```\n'
    )
    document = Document(page.read_text(), str(page))
    found = sorted(blocks_of(document), key=lambda one: one.start)
    assert [(one.parsed.language, one.parsed.title) for one in found] == [
        ("python", None), ("python", None), ("toml", "plan.toml"), ("bash", None),
    ]  # fmt: skip


def test_commands_are_read_as_a_shell_reads_them() -> None:
    source = 'RUN="--a b"  # said once\nN=1 uncanny record $RUN \\\n  --steps 3 > out.txt && ls  # and this\n'
    assert list(commands_of(source)) == [
        Command(("uncanny", "record", "--a", "b", "--steps", "3"), {"N": "1"}, Path("out.txt")),
        Command(("ls",)),
    ]


@pytest.mark.parametrize(
    "source",
    [
        "uncanny list nothing",  # exits with 2
        "uncanny list data --no-such-option",
        "python benchmarks/gcg_memory.py --no-such-option",
        "python benchmarks/no_such_script.py",
        "make no-such-target",
        "pip install 'uncannyvalley[no-such-extra]'",
        "unknown-command",
        "# nothing",
    ],
)
def test_a_line_that_would_fail_a_reader_fails(source: str) -> None:
    with pytest.raises((AssertionError, FileNotFoundError)):
        run_block(source)


def test_an_exit_code_is_that_of_the_last_command() -> None:
    run_block("uncanny list data\nuncanny list nothing", exit_code=2)
    with pytest.raises(AssertionError):
        run_block("uncanny list data", exit_code=2)
    with pytest.raises(AssertionError):
        run_block("uncanny list nothing\nuncanny list nothing", exit_code=2)


def test_scripts_are_parsed_and_not_begun() -> None:
    parse_only(REPOSITORY / "benchmarks" / "gcg_memory.py", ("--dtype", "bfloat16"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    return lambda on: monkeypatch.setenv(QUICK, "1" if on else "")


def test_sizes_are_lowered_and_never_raised(quick: Callable[[bool], None]) -> None:
    record = ["record", "--limit", "100", "--steps", "2", "--attack", "pgd"]
    quick(True)
    assert small_command(record) == ["record", "--limit", "12", "--steps", "2", "--attack", "pgd"]
    assert small_command(["detect", "fit", "--limit", "270"]) == ["detect", "fit", "--limit", "270"]
    assert small_command(["record", "--attack", "square"]) == ["record", "--attack", "square"]
    assert small_source("record(steps=250, seed=250); epochs = 1") == "record(steps=20, seed=250); epochs = 1"
    quick(False)
    assert small_command(record) == record
    assert small_source("steps=250") == "steps=250"


def test_a_page_leaves_no_trace() -> None:
    from uncannyvalley.measures import available, measure

    names, here, environment = set(available()), Path.cwd(), dict(os.environ)
    page = Page()
    measure("of_this_page", unit="log", order=0)(lambda probe: probe.log_feature_norm)
    os.environ["OF_THIS_PAGE"] = "1"
    page.world.make_for("uncanny record --data folder:images/")
    assert (page.root / "work" / "images").is_dir()
    page.close()
    assert not page.root.exists()
    assert (set(available()), Path.cwd(), dict(os.environ)) == (names, here, environment)
