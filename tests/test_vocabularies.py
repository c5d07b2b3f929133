"""Measures of very many classes: no table of distances, no dense eigenvalue, not all pairs."""

import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from cases import HEAD_MEASURES, SOFTMAX_MEASURES, Case, assert_equals_truth, logits_of_features, random_case
from oracles import class_variance, third_cumulant_by_pairs, third_cumulant_by_tensor, top_eigenvalue
from uncannyvalley import measures
from uncannyvalley.head import PAIRWISE_CLASSES
from uncannyvalley.measures.eigenvalue import DENSE_CLASSES
from uncannyvalley.measures.third import EXACT_CLASSES

VOCABULARY = 50_000


@pytest.fixture(scope="module")
def vocabulary() -> Case:
    """50 000 classes; two flat rows, a row with strong classes, a row in the valley."""
    case = logits_of_features(4, VOCABULARY, 16, seed=0, scale=0.3)
    case.logits[2] *= 4
    case.logits[3, 123] += 60
    return case


def test_a_vocabulary_is_finite_in_every_measure(vocabulary: Case) -> None:
    names = [name for name, known in measures.available().items() if not known.needs]
    for name, values in vocabulary.read(*names).items():
        assert np.isfinite(values).all(), name


def test_a_vocabulary_equals_the_definition(vocabulary: Case) -> None:
    found = vocabulary.read(*HEAD_MEASURES, "log_gini")
    for row in range(3):  # the definitions cancel in float64 beyond a gap of 30
        p = vocabulary.logits[row].softmax(dim=0)
        log_norm = vocabulary.features[row].norm().log().item()
        spread = (p @ (vocabulary.weight - p @ vocabulary.weight).square().sum(dim=1)).log().item()
        largest = math.log(top_eigenvalue(vocabulary.logits[row], vocabulary.weight))
        assert found["log_gini"][row] == pytest.approx(math.log(1 - p @ p), abs=1e-6)
        assert found["log_relative_sharpness"][row] == pytest.approx(2 * log_norm + spread, abs=1e-6)
        assert found["log_top_eigenvalue"][row] == pytest.approx(2 * log_norm + largest, abs=1e-6)


def test_a_vocabulary_in_the_valley_equals_truth(vocabulary: Case) -> None:
    last = Case(
        vocabulary.logits[3:], vocabulary.features[3:, :2], vocabulary.weight[:, :2], vocabulary.y[3:]
    )
    assert last.read("logit_gap")["logit_gap"][0] > 30
    assert_equals_truth(last, (*SOFTMAX_MEASURES, "log_relative_sharpness", "log_feature_gradient_norm"))


def test_the_form_without_a_table_equals_the_sum_over_pairs() -> None:
    classes = PAIRWISE_CLASSES + 1
    case = logits_of_features(3, classes, 4, seed=5)
    found = case.read("log_relative_sharpness")["log_relative_sharpness"]
    truth = class_variance(case.logits, case.weight).log() + 2 * case.features.norm(dim=1).log()
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-9)


@pytest.mark.parametrize("classes", [DENSE_CLASSES + 1, 300])
@pytest.mark.parametrize("width", [3, 64])
def test_matrix_free_eigenvalue_equals_the_dense_one(classes: int, width: int) -> None:
    case = logits_of_features(6, classes, width, seed=classes, scale=width**-0.5)
    found = case.read("log_top_eigenvalue")["log_top_eigenvalue"]
    for row in range(6):
        largest = case.features[row].square().sum().item() * top_eigenvalue(case.logits[row], case.weight)
        assert found[row] == pytest.approx(math.log(largest), abs=1e-8)


@pytest.mark.parametrize("scale", [0.05, 0.7, 2.0])
def test_third_order_remainder_bounds_what_was_left_out(scale: float) -> None:
    """From a flat softmax, where half the mass is dropped, to a peaked one, where nothing is."""
    classes = EXACT_CLASSES + 500
    case = logits_of_features(4, classes, 5, seed=7, scale=scale)
    found = case.read("log_third_order", "log_third_order_remainder")
    for row in range(4):
        truth = case.features[row].norm().item() ** 3 * third_cumulant_by_pairs(case.logits[row], case.weight)
        left_out = abs(truth - math.exp(found["log_third_order"][row]))
        assert left_out <= math.exp(found["log_third_order_remainder"][row]) + 1e-9 * truth
        if scale == 2.0:
            assert left_out < 1e-3 * truth


def test_third_order_remainder_is_attained_where_it_can_be() -> None:
    """Dropped rows that all pull one way from a heavy top class: the triangle inequality is nearly tight."""
    classes = EXACT_CLASSES + 500
    weight = torch.zeros(classes, 2, dtype=torch.float64)
    weight[600:, 0] = 1.0  # the 512 kept classes sit on the top row
    logits = torch.full((1, classes), -10.0, dtype=torch.float64)
    logits[0, 0], logits[0, 1:600] = 5.0, -9.0
    case = Case(logits, torch.ones(1, 2, dtype=torch.float64), weight, torch.zeros(1, dtype=torch.int64))
    found = case.read("log_third_order", "log_third_order_remainder")
    truth = 2**1.5 * third_cumulant_by_tensor(logits[0], weight)
    left_out = abs(truth - math.exp(found["log_third_order"][0]))
    remainder = math.exp(found["log_third_order_remainder"][0])
    assert 0.95 * remainder <= left_out <= remainder


def test_remainder_is_minus_infinity_where_all_pairs_are_summed() -> None:
    found = random_case(10, 3, seed=0).read("log_third_order_remainder")
    assert (found["log_third_order_remainder"] == -math.inf).all()


PEAK_MEMORY = """
    import resource, torch
    from uncannyvalley import measures
    from uncannyvalley.head import Head
    from uncannyvalley.types import Probe

    torch.set_num_threads(1)
    rows, classes, width = {rows}, {classes}, 16
    draw = torch.Generator().manual_seed(0)
    features, weight = torch.randn(rows, width, generator=draw), torch.randn(classes, width, generator=draw)
    x, y = torch.zeros(rows, 1), torch.zeros(rows, dtype=torch.int64)
    probe = Probe(x, x, y, None, torch.arange(rows), features, features @ weight.T, Head(weight, None))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measures.read(probe, measures.resolve({names}))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.parametrize(
    ("rows", "names"),
    [(600, ["log_entropy", "log_relative_sharpness"]), (100, ["log_top_eigenvalue", "log_third_order"])],
    ids=["sums", "products"],
)
def test_peak_memory_of_a_vocabulary_is_a_few_tables(rows: int, names: list[str]) -> None:
    """More rows than one block holds. A block's table takes 33 MB, that of all pairs of classes 20 GB."""
    code = textwrap.dedent(PEAK_MEMORY).format(rows=rows, classes=VOCABULARY, names=names)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    table = measures.registry.MAX_BLOCK_ELEMENTS * 8
    assert int(ended.stdout) < 24 * table
