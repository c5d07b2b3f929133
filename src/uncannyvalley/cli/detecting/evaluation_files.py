"""What an evaluation leaves on the disk: evaluation.json, roc.png and report.html."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uncannyvalley.detect.evaluation.evaluate import Evaluation

FIGURE_FILE, PAGE_FILE = "roc.png", "report.html"


def write_evaluation(
    found: "Evaluation",
    name: str,
    out: Path,
    *,
    about: Mapping[str, Any],
    doubts: Sequence[str],
    class_names: tuple[str, ...],
    command: str,
) -> dict[str, str]:
    """Write the files of the detector called ``name``; what → path. The page is made of what the JSON file says."""
    from uncannyvalley.report.detectors.loading import (
        JSON_FILE,
        StoredEvaluation,
        read_evaluation,
        roc_figure,
        section_of,
    )
    from uncannyvalley.report.detectors.section import render_detection
    from uncannyvalley.report.drawings.figures import to_png
    from uncannyvalley.storing.files import cannot_write, write_bytes
    from uncannyvalley.storing.stamped_json import write_stamped

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    write_stamped(
        out / JSON_FILE, StoredEvaluation(found, name, about, doubts, class_names, command).to_json()
    )
    stored = read_evaluation(out)
    write_bytes(out / FIGURE_FILE, to_png(roc_figure(stored)))
    write_bytes(out / PAGE_FILE, render_detection(section_of(stored)).encode())
    return {"numbers": str(out / JSON_FILE), "figure": str(out / FIGURE_FILE), "report": str(out / PAGE_FILE)}
