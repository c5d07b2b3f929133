"""Shell blocks of the docs, line by line: ``uncanny`` without a process of its own, scripts that take hours only parsed.

What is done with a command depends on its first word: see ``_KINDS``. A word that is not there fails, so that no line
is passed over in silence.
"""

import argparse
import os
import runpy
import shlex
import string
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from documented.sizes import small_command

REPOSITORY = Path(__file__).resolve().parents[2]
PARSED_ONLY = ("studies", "benchmarks", "examples")
"""Folders whose scripts have tests of their own or take hours: here their command line is parsed and nothing done."""


@dataclass(frozen=True)
class Command:
    """One command: its words, the variables set for it, and the file that takes what it prints."""

    words: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    output: Path | None = None


def run_block(source: str, exit_code: int = 0) -> None:
    """Run all commands of a block; each must succeed, the last end with ``exit_code``."""
    commands = list(commands_of(source))
    assert commands, "a shell block without a command: call it text"
    for number, command in enumerate(commands, 1):
        code = exit_code if number == len(commands) else 0
        with mock.patch.dict(os.environ, command.variables):
            printed = _kind(command.words[0])(command, code)
        if command.output is not None:
            command.output.write_text(printed)


def commands_of(source: str) -> Iterator[Command]:
    """The commands of a block; comments, continued lines and variables as a shell reads them."""
    variables: dict[str, str] = {}
    for line in source.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            words = shlex.split(string.Template(part).safe_substitute(variables), comments=True)
            assigned = [word.partition("=") for word in words]
            if all(equals and name.isidentifier() for name, equals, _ in assigned):
                variables |= {name: value for name, _, value in assigned}
            else:
                yield _command(words)


def _command(words: list[str]) -> Command:
    variables = {}
    while "=" in words[0] and words[0].split("=")[0].isidentifier():
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    output = None
    if ">" in words:
        at = words.index(">")
        output, words = Path(words[at + 1]), words[:at]
    return Command(tuple(words), variables, output)


def _kind(word: str) -> Callable[[Command, int], str]:
    name = word.rpartition("/")[2] if "bin/" in word else word
    if name not in _KINDS:
        raise AssertionError(
            f"no way to run {word!r}; teach tests/documented/commands.py, or mark the block 'not run: …'"
        )
    return _KINDS[name]


def _uncanny(command: Command, code: int) -> str:
    from folders import uncanny  # not before the tests' hook for shapes is installed

    return uncanny(*small_command(command.words[1:]), code=code).stdout


def _python(command: Command, code: int) -> str:
    """A script of ours has its arguments parsed; a file of the page's folder is run."""
    script = command.words[1]
    if script.split("/")[0] in PARSED_ONLY:
        parse_only(REPOSITORY / script, command.words[2:])
        return ""
    if script == "-m" and command.words[2] in ("venv", "pytest"):
        named = [word for word in command.words[3:] if word.endswith((".py", ".md"))]
        assert all((REPOSITORY / word).is_file() for word in named), f"no such tests: {named}"
        return ""
    return _process(Command((sys.executable, *command.words[1:])), code)


class _ParsedError(Exception):
    """Raised in place of what a script would do next."""


def parse_only(script: Path, arguments: tuple[str, ...]) -> None:
    """Run a script up to where it has parsed its command line; AssertionError where it cannot be parsed."""
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *given: Any, **named: Any) -> Any:
        parse(parser, *given, **named)
        raise _ParsedError

    before = dict(sys.modules)
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        mock.patch.object(sys, "argv", [str(script), *arguments]),
        mock.patch.object(sys, "path", [str(script.parent), *sys.path]),
    ):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except _ParsedError:
            pass
        except SystemExit as end:
            raise AssertionError(f"{script.name} cannot parse {' '.join(arguments)}") from end
        else:
            raise AssertionError(f"{script.name} parsed no command line")
        finally:
            _forget_rooms_of(script.parent, before)


def _forget_rooms_of(folder: Path, before: dict[str, Any]) -> None:
    """Modules beside a script go again: two scripts may call theirs alike."""
    for name in set(sys.modules) - set(before):
        if str(folder) in str(getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def _make(command: Command, code: int) -> str:
    """The targets are there and their recipes can be read; CI calls them itself."""
    targets = [word for word in command.words[1:] if "=" not in word]
    return _process(Command(("make", "--dry-run", "--directory", str(REPOSITORY), *targets)), code)


def _pip(command: Command, _: int) -> str:
    """Nothing is installed, but every extra that is named exists."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for word in command.words[2:]:
        name, bracket, extras = word.partition("[")
        if bracket and name in (".", project["name"]):
            for extra in extras.rstrip("]").split(","):
                assert extra in project["optional-dependencies"], f"pyproject.toml has no extra {extra!r}"
    return ""


def _process(command: Command, code: int) -> str:
    done = subprocess.run(command.words, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


_KINDS: dict[str, Callable[[Command, int], str]] = {
    "uncanny": _uncanny,
    "python": _python,
    "python3": _python,
    "python3.11": _python,
    "pre-commit": lambda command, _: "",
    "make": _make,
    "pip": _pip,
    **dict.fromkeys(("cat", "cp", "head", "ls", "mkdir", "mv"), _process),
}
