"""``uncanny detect`` on digits, without a process of its own."""

import json
from pathlib import Path

import jaxtyping
from typer.testing import CliRunner, Result

from uncannyvalley.cli.detecting import detect

CLEAN = 270
"""Digits that detectors are fitted and calibrated on; the others are held out."""


def run(*arguments: str | Path, code: int = 0) -> Result:
    """``uncanny detect`` without a process of its own."""
    jaxtyping.config.update("jaxtyping_disable", True)  # the shape hook cannot read typer's annotations
    try:
        ended = CliRunner().invoke(detect, [str(one) for one in arguments])
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == code, ended.output
    return ended


def fit_demo(place: Path) -> dict:
    """What fitting a detector to the first digits prints; it is written to ``place``."""
    return json.loads(run("fit", "--limit", CLEAN, "--budget", "4", "--out", place, "--json").stdout)
