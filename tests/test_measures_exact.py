"""Every measure is what its name says: derivatives, parts of the sharpness, symmetries, rows alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cases import GAPS, logits_of_features, quick, random_case
from oracles import autograd_measures
from uncannyvalley import measures
from uncannyvalley.head import Head

HESSIAN_MEASURES = (
    "log_trace",
    "log_relative_sharpness",
    "log_layer_relative_sharpness",
    "log_released_relative_sharpness",
    "log_top_eigenvalue",
    "log_third_order",
    "feature_gradient_norm",
)

SIZES = [5, 40, 2100]
"""The paths of the code: all pairs with a dense eigenvalue, Lanczos steps, no table of distances."""


# --- derivatives ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "width"), [(2, 3), (3, 4), (5, 2), (7, 3)])
def test_measures_are_the_derivatives_they_name(classes: int, width: int) -> None:
    case = logits_of_features(4, classes, width, seed=classes)
    bias = torch.linspace(-1, 1, classes, dtype=torch.float64)
    case = case._replace(logits=case.logits + bias)
    found = measures.read(case.probe(bias), measures.resolve(HESSIAN_MEASURES))
    for row in range(len(case.logits)):
        twin = autograd_measures(case.weight, bias, case.features[row], case.y[row])
        for name in HESSIAN_MEASURES:
            assert found[name][row] == pytest.approx(twin[name], rel=1e-8, abs=1e-8), name


def test_hessian_measures_do_not_depend_on_the_label() -> None:
    case = random_case(5, 3, seed=1)
    relabelled = case._replace(y=(case.y + 1) % 5)
    names = [name for name in HESSIAN_MEASURES if name.startswith("log_")]
    first, second = case.read(*names), relabelled.read(*names)
    for name in names:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


# --- what sharpness is made of ----------------------------------------------------------------------


@quick
@given(
    classes=st.sampled_from([2, 3, 10, 100, 2100]),
    gap=st.floats(0, 200),
    below=st.floats(0, 100),
    seed=st.integers(0, 2**32),
)
def test_sharpness_is_confidence_times_norm_times_geometry(
    classes: int, gap: float, below: float, seed: int
) -> None:
    case = random_case(classes, 4, seed=seed, gaps=(gap,), below=below)
    found = case.read("log_relative_sharpness", "log_gini", "feature_norm", "log_geometry")
    parts = found["log_gini"] + 2 * np.log(found["feature_norm"]) + found["log_geometry"]
    np.testing.assert_allclose(found["log_relative_sharpness"], parts, rtol=0, atol=1e-6)
    low, high = case.probe().head.log_geometry_band
    assert low - 1e-6 <= found["log_geometry"][0] <= high + 1e-6  # the features are float32


def test_geometry_band_is_that_of_the_pairs_of_rows() -> None:
    head = Head(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]]), None)
    assert head.log_geometry_band == pytest.approx((math.log(4 / 2), math.log(20 / 2)))


# --- symmetries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", SIZES)
@pytest.mark.parametrize("factor", [1e-2, 7.0])
def test_rescaling_between_features_and_head(classes: int, factor: float) -> None:
    case = random_case(classes, 4, seed=2, dtype=torch.float64)
    scaled = case._replace(features=case.features * factor, weight=case.weight / factor)
    unmoved = (
        "log_relative_sharpness",
        "log_layer_relative_sharpness",
        "log_top_eigenvalue",
        "log_third_order",
    )
    before, after = (one.read(*unmoved, "log_released_relative_sharpness") for one in (case, scaled))
    for name in unmoved:
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=1e-9, err_msg=name)
    moved = after["log_released_relative_sharpness"] - before["log_released_relative_sharpness"]
    np.testing.assert_allclose(moved, math.log(factor), rtol=0, atol=1e-9)


@pytest.mark.parametrize("classes", SIZES)
def test_one_vector_added_to_all_rows(classes: int) -> None:
    """The softmax cannot see it; measures with |W|_F do, wrongly."""
    case = random_case(classes, 4, seed=3, dtype=torch.float64)
    shifted = case._replace(weight=case.weight + torch.tensor([3.0, -1.0, 2.0, 5.0], dtype=torch.float64))
    unmoved = (
        "log_relative_sharpness", "log_geometry", "log_trace", "log_top_eigenvalue",
        "log_third_order", "log_feature_gradient_norm",
    )  # fmt: skip
    moved = ("log_layer_relative_sharpness", "log_released_relative_sharpness")
    before, after = case.read(*unmoved, *moved), shifted.read(*unmoved, *moved)
    for name in unmoved:
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=1e-9, err_msg=name)
    for name in moved:
        assert (after[name] > before[name] + 0.1).all(), name


# --- rows are alone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, *SIZES])
def test_rows_are_independent_of_their_neighbours(classes: int) -> None:
    case = random_case(classes, 4, seed=11)
    names = [name for name, known in measures.available().items() if not known.needs]
    together = case.read(*names)
    order = torch.randperm(len(GAPS), generator=torch.Generator().manual_seed(0))
    permuted = case._replace(logits=case.logits[order], features=case.features[order], y=case.y[order])
    for name, values in permuted.read(*names).items():
        np.testing.assert_allclose(values, together[name][order], rtol=1e-9, atol=1e-9, err_msg=name)
    for row in (0, 4, 8):
        rows = slice(row, row + 1)
        alone = case._replace(logits=case.logits[rows], features=case.features[rows], y=case.y[rows])
        for name, values in alone.read(*names).items():
            np.testing.assert_allclose(values, together[name][rows], rtol=1e-9, atol=1e-9, err_msg=name)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(10, 4, seed=12)
    names = [name for name, known in measures.available().items() if not known.needs]
    whole = case.read(*names)
    monkeypatch.setattr(measures.registry, "MAX_BLOCK_ELEMENTS", 40)  # four rows at a time, then one
    for name, values in case.read(*names).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-12, atol=1e-12, err_msg=name)
