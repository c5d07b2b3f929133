"""Measures of float32 rows against 160-digit truth, in the valley and on the ridge."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cases import GAPS, HEAD_MEASURES, SOFTMAX_MEASURES, assert_equals_truth, quick, random_case
from uncannyvalley import measures
from uncannyvalley.measures.third import EXACT_CLASSES


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("below", [1.0, 10.0, 100.0])
def test_float32_equals_truth_at_every_gap(classes: int, below: float) -> None:
    case = random_case(classes, 3, seed=classes, below=below)
    assert_equals_truth(case, SOFTMAX_MEASURES + HEAD_MEASURES)


def test_float32_equals_truth_for_a_thousand_classes() -> None:
    case = random_case(1000, 2, seed=0)
    assert_equals_truth(case, (*SOFTMAX_MEASURES, *HEAD_MEASURES, "log_third_order"))


@quick
@given(
    classes=st.sampled_from([2, 3, 10]),
    gap=st.one_of(st.sampled_from(GAPS), st.floats(0, 200)),
    below=st.floats(0, 100),
    seed=st.integers(0, 2**32),
)
def test_float32_equals_truth_anywhere(classes: int, gap: float, below: float, seed: int) -> None:
    case = random_case(classes, 3, seed=seed, gaps=(gap,), below=below)
    assert_equals_truth(case, SOFTMAX_MEASURES + HEAD_MEASURES)


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_gaps_beyond_the_range_of_float64(classes: int) -> None:
    """e^-2000 is no number of float64, but its logarithm is; only two classes matter there."""
    gap, case = 2000.0, random_case(classes, 3, seed=classes, gaps=(2000.0,), below=4000.0)
    top, second = case.logits.topk(2, dim=1).indices[0].tolist()
    case = case._replace(y=torch.tensor([top]))
    apart = (case.weight[top] - case.weight[second]).double().norm().log().item()
    length = case.features[0].double().norm().log().item()
    truth = {
        "log_loss": -gap,
        "log_error_probability": -gap,
        "log_entropy": math.log(1 + gap) - gap,
        "log_gini": math.log(2) - gap,
        "log_geometry": 2 * apart - math.log(2),
        "log_feature_gradient_norm": apart - gap,
        "log_trace": 2 * length + math.log(2) - gap,
        "log_relative_sharpness": 2 * (length + apart) - gap,
        "log_top_eigenvalue": 2 * (length + apart) - gap,
        "log_third_order": 3 * (length + apart) - gap,
    }
    for name, values in case.read(*truth).items():
        assert values[0] == pytest.approx(truth[name], rel=0, abs=1e-4), name


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_one_number_added_to_all_logits_changes_nothing(classes: int) -> None:
    """Logits of a few bits, so that float32 holds the shifted ones exactly."""
    case = random_case(classes, 3, seed=classes)
    case = case._replace(logits=(case.logits * 64).round() / 64)
    names = [name for name, known in measures.available().items() if not known.needs]
    shifted = case._replace(logits=case.logits + 4096.0).read(*names)
    for name, values in case.read(*names).items():
        np.testing.assert_allclose(shifted[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("below", [1.0, 20.0, 80.0])
def test_third_order_equals_truth_on_the_ridge(classes: int, below: float) -> None:
    """Where the two top classes tie, p(1−p)(1−2p) of the pair vanishes and the other classes decide."""
    gaps = (*GAPS, 1e-7, 1e-6, 1e-5, 1e-4, 1e-2)
    assert_equals_truth(random_case(classes, 3, seed=classes, gaps=gaps, below=below), ("log_third_order",))


def test_third_order_of_many_classes_equals_truth_on_the_ridge() -> None:
    """The pairs of the most probable classes suffice here: all but three lie 30 nats down."""
    case = random_case(EXACT_CLASSES + 1, 2, seed=4, gaps=(0.0, 1e-7, 1e-5, 1e-3, 0.9, 1.1), below=60.0)
    third = case.logits.topk(3, dim=1).indices[0, 2]
    case.logits[:, third] = -10.0
    assert_equals_truth(case, ("log_third_order",))


@pytest.mark.parametrize("classes", [3, 40])
def test_two_top_classes_with_one_row_of_weights(classes: int) -> None:
    """They count as one class: what is left of the sharpness comes from the classes below."""
    case = random_case(classes, 3, seed=0, below=50.0)
    top_two = case.logits.topk(2, dim=1).indices[0]  # one permutation serves all rows
    case.weight[top_two[1]] = case.weight[top_two[0]]
    assert_equals_truth(case, ("log_relative_sharpness", "log_geometry", "log_top_eigenvalue"))
