"""UNCANNY_QUICK=1 makes what the pages do small: fewer images, steps and epochs; the same commands otherwise.

A page is written for its readers, whose numbers are worth having. In CI the question is whether each line still
works, so numbers behind the words below are lowered before a block is run, never raised. ``UNCANNY_QUICK=`` (empty)
runs every block as it is written.
"""

import os
import re
from collections.abc import Mapping, Sequence

QUICK = "UNCANNY_QUICK"

COMMANDS: Mapping[str, int] = {
    "--limit": 12, "--steps": 4, "--epochs": 1, "--new-tokens": 8, "--workers": 2, "--images": 8, "--draws": 2,
    "--queries": 30, "--parts": 4,
}  # fmt: skip
"""Options of ``uncanny`` that are lowered to at most this. ``--limit`` of ``uncanny detect fit`` stays: a promised rate
needs its calibration images, and looking at them is quick."""

MISSING: Mapping[str, tuple[str, ...]] = {
    "demo": ("--limit", "12"),
    "record": ("--steps", "4"),
    "train": ("--epochs", "1", "--limit", "192", "--evaluation-steps", "2"),
    "certify": ("--limit", "4"),
    "measure": ("--limit", "4"),
    "detect evaluate": ("--limit", "12"),
    "detect attack": ("--limit", "4", "--steps", "4", "--draws", "2", "--queries", "30"),
}
"""What is added to a command that leaves it to a default."""

NAMES: Mapping[str, int] = {
    "steps": 20, "epochs": 2, "search_width": 24, "topk": 16, "queries": 30, "limit": 12, "new_tokens": 8, "n_init": 1,
}  # fmt: skip
"""Names of arguments, in Python, in plan files and behind ``--attack-arg``, that are lowered to at most this."""

_NAMED = re.compile(rf"\b(?P<name>{'|'.join(NAMES)})(?P<equals>\s*=\s*)(?P<number>\d[\d_]*)\b")


def is_quick() -> bool:
    return bool(os.environ.get(QUICK))


def small_source(source: str) -> str:
    """Python or TOML with its named sizes lowered; unchanged unless UNCANNY_QUICK is set."""
    return _NAMED.sub(_lowered, source) if is_quick() else source


def small_command(arguments: Sequence[str]) -> list[str]:
    """Arguments of ``uncanny`` with their sizes lowered; unchanged unless UNCANNY_QUICK is set."""
    if not is_quick():
        return list(arguments)
    fits = list(arguments[:2]) == ["detect", "fit"]
    small: list[str] = []
    for argument in arguments:
        option = small[-1] if small else ""
        if option in COMMANDS and argument.isdigit() and not (fits and option == "--limit"):
            argument = str(min(int(argument), COMMANDS[option]))
        small.append(small_source(argument))
    missing = MISSING.get(small[0], ()) or MISSING.get(" ".join(small[:2]), ())
    if not _says_its_sizes(small):
        for option, value in zip(missing[::2], missing[1::2], strict=True):
            small += [] if option in small else [option, value]
    if "gcg" in small:
        small += [
            "--attack-arg",
            f"search_width={NAMES['search_width']}",
            "--attack-arg",
            f"topk={NAMES['topk']}",
        ]
    return small


def _says_its_sizes(arguments: Sequence[str]) -> bool:
    """Whether sizes come from a plan file, or the attack is a library's, which has no steps."""
    from uncannyvalley.adversaries import ADVERSARIES

    return any(one.endswith(".toml") or one in ADVERSARIES or one == "--help" for one in arguments)


def _lowered(found: re.Match[str]) -> str:
    number = min(int(found["number"].replace("_", "")), NAMES[found["name"]])
    return f"{found['name']}{found['equals']}{number}"
