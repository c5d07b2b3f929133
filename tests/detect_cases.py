"""``uncanny detect`` on digits, without a process of its own."""

import json
from pathlib import Path

from typer.testing import Result

from folders import uncanny

CLEAN = 270
"""Digits that detectors are fitted and calibrated on; the others are held out."""


def run(*arguments: str | Path, code: int = 0) -> Result:
    """``uncanny detect`` without a process of its own."""
    return uncanny("detect", *arguments, code=code)


def fit_demo(place: Path) -> dict:
    """What fitting a detector to the first digits prints; it is written to ``place``."""
    return json.loads(run("fit", "--limit", CLEAN, "--budget", "4", "--out", place, "--json").stdout)
