"""The arithmetic of comparisons, on walks made by hand and samples whose intervals are known."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from made import made
from uncannyvalley.analysis.common_axis import over_fractions
from uncannyvalley.analysis.comparison import compare_runs
from uncannyvalley.analysis.contrast import compare_values
from uncannyvalley.analysis.walked import Walked
from uncannyvalley.trajectory import Trajectory


def walked(sharpness: list[list[float]], wrong: list[list[bool]]) -> Walked:
    return Walked(made(sharpness, wrong), "images")


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_of_means_agree_with_the_central_limit_theorem(paired: bool) -> None:
    rng = np.random.default_rng(3)
    first = rng.normal(size=400)
    second = first + rng.normal(0.5, 0.3, size=400)
    error = (second - first).std() / 20 if paired else math.hypot(first.std(), second.std()) / 20
    found = compare_values(first, second, np.mean, paired=paired).difference
    assert found.value == pytest.approx((second - first).mean())
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)


def test_pairs_leave_out_what_either_misclassified_and_steps_what_either_lacks() -> None:
    calm, flips, never = [False] * 3, [False, True, True], [True] * 3
    first = walked([[0.0, 5, -1]] * 4, [flips, flips, flips, never])
    second = walked([[0.0, 4, -3]] * 4, [never, calm, flips, flips])
    (found,) = compare_runs({"first": first, "second": second}).contrasts
    assert found.examples == (2, 2)
    assert found.differences["depth"].difference.value == 2
    assert found.differences["flipped"].difference.value == -0.5
    assert found.differences["flip_step"].examples == (1, 1)
    assert math.isnan(found.differences["flip_step"].difference.value)  # one example has no interval
    assert compare_runs({"first": first, "second": second}, baseline="second").contrasts[0].second == "first"


def test_walks_that_end_one_by_one() -> None:
    """The last recorded row of each example counts; curves stop where fewer than half of the images are left."""
    nan = math.nan
    long = walked(
        [[0, 1, 2, nan, nan], [0, 2, 4, 6, nan], [0, 3, 3, 3, 9]], [[False, True, True, True, True]] * 3
    )
    short = walked([[0.0, 1]] * 3, [[False, True]] * 3)
    found = compare_runs({"long": long, "short": short}, measures=["log_relative_sharpness"])
    moves = found.measures["log_relative_sharpness"]["long"]
    assert moves is not None
    assert moves.end.value == np.median([2, 6, 9])
    assert moves.flip.value == 2
    drawn = found.drawn["long"]
    assert found.axis == "step"
    assert drawn.curve is not None
    assert drawn.curve.steps.tolist() == [0, 1, 2, 3]
    assert drawn.curve.median.tolist() == [0, 2, 3, 4.5]
    assert drawn.cut
    assert not found.drawn["short"].cut
    assert drawn.flip == (1, 2)
    fractions = compare_runs({"long": long, "short": short}, axis="fraction").drawn["long"]
    assert fractions.curve is not None
    assert fractions.curve.median[-1] == 6
    assert fractions.flip is not None
    assert fractions.flip[0] == pytest.approx(1 / 3)


def test_fractions_are_straight_between_recorded_rows() -> None:
    nan = math.nan
    found = over_fractions(np.array([[0, 4, nan, nan, nan], [0, nan, 2, nan, 10], [-np.inf, 1, 3, nan, nan]]))
    np.testing.assert_allclose(found[0], np.linspace(0, 4, 201))
    np.testing.assert_allclose(found[1, [0, 25, 100, 150, 200]], [0, 0.5, 2, 6, 10])
    assert found[2, :100].tolist() == [-np.inf] * 100
    assert found[2, [100, 150, 200]].tolist() == [1, 2, 3]


def test_long_and_short_walks_share_an_axis_of_fractions() -> None:
    def walk(rows: int) -> Walked:
        return walked([[float(row) for row in range(rows)]] * 3, [[False] * rows] * 3)

    assert compare_runs({"a": walk(5), "b": walk(21)}).axis == "step"
    assert compare_runs({"a": walk(5), "b": walk(22)}).axis == "fraction"
    assert compare_runs({"a": walk(5), "b": walk(22)}, axis="step").axis == "step"


def test_vanished_sharpness_is_compared_without_a_warning() -> None:
    gone = walked([[0.0, 5, -np.inf], [1, 2, -3], [-np.inf, 2, -np.inf]], [[False, True, True]] * 3)
    calm = walked([[0.0, 1, 0], [1, 1.5, 1], [2, 2, 2]], [[False] * 3] * 3)
    found = compare_runs({"gone": gone, "calm": calm})
    assert json.dumps(found.to_dict(), allow_nan=False)
    assert found.contrasts[0].differences["flipped"].difference.value == -1


def test_comparing_trajectories_needs_no_torch() -> None:
    code = "import sys, uncannyvalley.analysis.comparison; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_images_that_were_never_asked_about_are_left_out() -> None:
    """A watched attack may skip images, with phases and without."""
    whole = made(
        [[0.0, 5, -1, math.nan], [0, 5, -1, math.nan], [0, 5, -1, -2]], [[False, True, True, True]] * 3
    )
    skipped = Trajectory(whole.table, ids=(0, 1, 2, 3, 4, 5))
    bare = Trajectory(skipped.table.drop_columns("log_gini"), skipped.ids)
    found = compare_runs(
        {
            name: Walked(one, "images")
            for name, one in (("whole", whole), ("skipped", skipped), ("bare", bare))
        }
    )
    assert [walk.examples for walk in found.walks] == [3, 3, 3]
    assert [one.examples for one in found.contrasts] == [(3, 3), (3, 3)]
    assert [one.steps for one in found.drawn.values()] == [2, 2, 2]
