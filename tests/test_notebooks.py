"""The notebooks for a course: they run with no exercise solved, and their checks tell right answers from wrong ones."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "examples" / "notebooks").glob("*.ipynb"))

# The exercises' functions and the names that they are checked by; what is wrong for all of them.
WRONG_ANSWERS = """
for number in range(1, {count} + 1):
    for wrong in ((0.0, 0.0, 0.0), (float("nan"),) * 2, 0.0, "none"):
        check(lambda: wrong, *globals()[f"check_{{number}}"])
check(lambda: 1 / 0, *check_1)
"""


def cells(notebook: Any, tag: str) -> list[Any]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]


def printed(cell: Any) -> str:
    return "".join(one["text"] for one in cell.outputs if one.get("name") == "stdout")


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Any:
    return nbformat.read(request.param, as_version=4)


@pytest.fixture(scope="module")
def executed(notebook: Any) -> Any:
    """The notebook as a reader runs it who solves nothing, and behind it a cell of wrong answers."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    copy = nbformat.from_dict(notebook)
    count = len(cells(copy, "exercise"))
    copy.cells.append(
        nbformat.v4.new_code_cell(WRONG_ANSWERS.format(count=count), metadata={"tags": ["wrong"]})
    )
    before = {name: os.environ.get(name) for name in ("UNCANNY_QUICK", "OMP_NUM_THREADS", "MPLBACKEND")}
    os.environ |= {"UNCANNY_QUICK": "1", "OMP_NUM_THREADS": "1"}
    os.environ.pop("MPLBACKEND", None)  # the kernel chooses its own
    try:
        return nbclient.NotebookClient(copy, timeout=300, kernel_name="python3").execute()
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["01_ridge_and_valley", "02_is_it_only_confidence"]


def test_committed_as_written(notebook: Any) -> None:
    """No outputs, no counters, cells with ids that stay: a change is a readable difference."""
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    ids = [cell.id for cell in notebook.cells]
    assert all(re.fullmatch(r"0\d-\d\d", one) for one in ids)
    assert len(set(ids)) == len(ids)


def test_each_exercise_has_a_check_and_a_collapsed_solution(notebook: Any) -> None:
    exercises = cells(notebook, "exercise")
    assert len(exercises) >= 5
    assert all("# your code here" in cell.source for cell in exercises)
    for exercise in exercises:
        place = notebook.cells.index(exercise)
        check, solution = notebook.cells[place + 1 : place + 3]
        assert "check" in check.metadata.tags
        assert "solution" in solution.metadata.tags
        assert all(one.metadata.jupyter["source_hidden"] for one in (check, solution))


def test_unsolved_exercises_stop_nothing(executed: Any) -> None:
    checks, solutions = cells(executed, "check"), cells(executed, "solution")
    assert [printed(cell).strip() for cell in checks] == ["Not answered yet."] * len(checks)
    assert all(printed(cell).startswith("Right.") for cell in solutions)


def test_wrong_answers_are_told(executed: Any) -> None:
    (wrong,) = cells(executed, "wrong")
    lines = printed(wrong).splitlines()
    assert len(lines) == 4 * len(cells(executed, "exercise")) + 1
    assert all(line.startswith("Not yet") for line in lines), lines
    assert "ZeroDivisionError" in lines[-1]


def test_nothing_is_printed_but_what_is_meant(executed: Any) -> None:
    """No warnings, no errors: a reader would not know whether they matter."""
    for cell in executed.cells:
        for one in cell.get("outputs", ()):
            assert one.output_type != "error"
            assert one.get("name") != "stderr", one.get("text")
