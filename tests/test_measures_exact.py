"""Every closed-form measure against its slow twin, in the valley, on the ridge and for vocabularies."""

import math
import subprocess
import sys
import textwrap
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import uncannyvalley as uv
from oracles import (
    ExactRow,
    autograd_measures,
    class_variance,
    third_cumulant_by_pairs,
    third_cumulant_by_tensor,
    top_eigenvalue,
)
from uncannyvalley import measures, objectives
from uncannyvalley.head import PAIRWISE_CLASSES, Head
from uncannyvalley.measures.eigenvalue import DENSE_CLASSES
from uncannyvalley.measures.third import EXACT_CLASSES
from uncannyvalley.probe import Prober
from uncannyvalley.types import OBJECTIVE_GRAD, Probe

GAPS = (0.0, 1e-3, 0.1, 1.0, 10.0, 50.0, 100.0, 150.0, 200.0)
VOCABULARY = 50_000
HESSIAN_MEASURES = (
    "log_trace",
    "log_relative_sharpness",
    "log_layer_relative_sharpness",
    "log_released_relative_sharpness",
    "log_top_eigenvalue",
    "log_third_order",
    "feature_gradient_norm",
)
SOFTMAX_MEASURES = (
    "loss",
    "log_loss",
    "log_error_probability",
    "margin",
    "logit_gap",
    "confidence",
    "entropy",
    "log_entropy",
    "log_gini",
)
HEAD_MEASURES = (
    "feature_norm",
    "feature_gradient_norm",
    "log_feature_gradient_norm",
    "log_geometry",
    "log_relative_sharpness",
    "log_trace",
    "log_layer_relative_sharpness",
    "log_released_relative_sharpness",
    "log_top_eigenvalue",
)

quick = settings(max_examples=40, deadline=None, derandomize=True)


class Case(NamedTuple):
    """Rows of a probe: any logits go with any features, for the measures see both as given."""

    logits: Tensor
    features: Tensor
    weight: Tensor
    y: Tensor

    def probe(self, bias: Tensor | None = None) -> Probe:
        rows = len(self.logits)
        x = torch.zeros(rows, 1, dtype=self.features.dtype)
        head = Head(self.weight, bias)
        return Probe(x, x, self.y, None, torch.arange(rows), self.features, self.logits, head)

    def read(self, *names: str) -> dict[str, np.ndarray]:
        return measures.read(self.probe(), measures.resolve(names))

    def exact(self, row: int) -> ExactRow:
        return ExactRow(self.logits[row], self.features[row], self.weight, int(self.y[row]))


def random_case(
    classes: int,
    width: int,
    *,
    seed: int,
    gaps: tuple[float, ...] = GAPS,
    below: float = 10.0,
    dtype: torch.dtype = torch.float32,
) -> Case:
    """A row for each gap of the two largest logits; the others lie ½ to 1 times ``below`` under those."""
    draw = torch.Generator().manual_seed(seed)
    rows = len(gaps)
    depth = below * (1 + torch.rand(rows, classes, generator=draw)) / 2
    logits = 0.5 - torch.tensor(gaps)[:, None] - depth
    logits[:, 0], logits[:, 1] = 0.5, 0.5 - torch.tensor(gaps)
    return Case(
        logits[:, torch.randperm(classes, generator=draw)].to(dtype),
        torch.randn(rows, width, generator=draw).to(dtype),
        torch.randn(classes, width, generator=draw).to(dtype),
        torch.randint(classes, (rows,), generator=draw),
    )


def logits_of_features(rows: int, classes: int, width: int, seed: int, scale: float = 1.0) -> Case:
    """Logits that are Wφ, in float64."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, width, generator=draw, dtype=torch.float64)
    weight = scale * torch.randn(classes, width, generator=draw, dtype=torch.float64)
    return Case(features @ weight.T, features, weight, torch.randint(classes, (rows,), generator=draw))


def assert_equals_truth(case: Case, names: tuple[str, ...]) -> None:
    """Within 1e-4 of the 160-digit truth, in every row; −inf only where the truth is −inf."""
    found = case.read(*names)
    rows = [case.exact(row) for row in range(len(case.logits))]
    for name in names:
        truth = np.array([getattr(row, name)() for row in rows])
        np.testing.assert_allclose(found[name], truth, rtol=0, atol=1e-4, err_msg=name)


# --- (a) derivatives --------------------------------------------------------------------------------


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


# --- (b) what sharpness is made of ------------------------------------------------------------------


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
    assert low - 1e-9 <= found["log_geometry"][0] <= high + 1e-9


def test_geometry_band_is_that_of_the_pairs_of_rows() -> None:
    head = Head(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]]), None)
    assert head.log_geometry_band == pytest.approx((math.log(4 / 2), math.log(20 / 2)))


# --- (c) float32 in the valley and on the ridge -----------------------------------------------------


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


# --- (d) symmetries ---------------------------------------------------------------------------------

SIZES = [5, 40, 2100]
"""The paths of the code: all pairs with a dense eigenvalue, Lanczos steps, no table of distances."""


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


# --- (e) vocabularies -------------------------------------------------------------------------------


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


# --- (f) rows are alone -----------------------------------------------------------------------------


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


# --- (g) gradients ----------------------------------------------------------------------------------


def small_network(sharpness: float, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).to(dtype).eval()
    with torch.no_grad():
        net[3].weight *= sharpness
    return net


def images(count: int, dtype: torch.dtype) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)


def cross_entropy_gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(net(x), y, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def test_input_gradient_norm_is_that_of_cross_entropy() -> None:
    net, x = small_network(3.0, torch.float64), images(6, torch.float64)
    y = torch.arange(6)
    walk = uv.attacks.noise(eps=0.1, step_size=0.05)
    names = ["input_gradient_norm", "log_input_gradient_norm", "feature_gradient_norm"]
    recorded = uv.record(net, x, y, walk, steps=1, measures=names)
    truth = cross_entropy_gradient(net, x, y).flatten(1).norm(dim=1).numpy()
    np.testing.assert_allclose(recorded.column("input_gradient_norm")[:, 0], truth, rtol=1e-9)
    np.testing.assert_allclose(recorded.column("log_input_gradient_norm")[:, 0], np.log(truth), atol=1e-9)


def test_input_gradient_norm_survives_float32_in_the_valley() -> None:
    """Two linear classes: |∂ℓ/∂x| = (1 − p_y) |w_0 − w_1|, which float32 loses beyond a gap of 17."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    difference = torch.tensor([150.0, -100.0, 50.0, 100.0])
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([difference, torch.zeros(4)]))
        net[1].bias.zero_()
    x = torch.full((1, 1, 2, 2), 0.75)
    recorded = uv.record(
        net, x, torch.tensor([0]), uv.attacks.noise(eps=0.1, step_size=0.1), steps=1,
        measures=["log_input_gradient_norm", "margin"],
    )  # fmt: skip
    assert recorded.column("margin")[0, 0] == 150.0
    truth = -150.0 + math.log(difference.norm())
    assert recorded.column("log_input_gradient_norm")[0, 0] == pytest.approx(truth, abs=1e-4)


def test_log_loss_keeps_the_gradient_signs_that_cross_entropy_loses() -> None:
    exact_net, net = small_network(200.0, torch.float64), small_network(200.0, torch.float32)
    x = images(400, torch.float32)
    y = net(x).argmax(dim=1)
    certain = net(x).softmax(dim=1).amax(dim=1) == 1
    calm = exact_net(x.double()).topk(2).values.diff().abs().flatten() < 25  # float64 still holds the truth
    x, y = x[certain & calm].detach(), y[certain & calm]
    assert len(x) >= 20
    truth = cross_entropy_gradient(exact_net, x.double(), y).sign()
    prober = Prober(uv.split(net, x), x, y, objective=objectives.log_loss)
    ours = prober(x, {OBJECTIVE_GRAD}).objective_grad
    plain = cross_entropy_gradient(net, x, y)
    assert (ours.sign() == truth).double().mean() >= 0.999
    assert (plain.sign() == truth).double().mean() < 0.9


def test_log_loss_gradient_is_not_zero_at_a_gap_of_200() -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    case = Case(logits, torch.ones(2, 1), torch.ones(2, 1), torch.tensor([0, 0]))
    (gradient,) = torch.autograd.grad(objectives.log_loss(case.probe()).sum(), logits)
    expected = torch.tensor(
        [[-1.0, 1.0], [-1 / 200, 1 / 200]]
    )  # ∂ log softplus(g)/∂g: 1 as g → −∞, 1/g as g → ∞
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=0)
