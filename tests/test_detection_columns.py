"""What a detector reads, against definitions: every column by its float64 twin."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import detection_oracles as twins
from detection_oracles import TWINS
from uncannyvalley import InputError, measures
from uncannyvalley.detect.columns import Columns, known_columns, make_columns
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.looks import WALK_STEP, Looker
from uncannyvalley.detect.questions import Question
from uncannyvalley.detect.recipes import Recipe
from uncannyvalley.detect.references import KEPT_ROWS, NEIGHBOURS, LocalDimension, Mahalanobis
from uncannyvalley.probe import Prober
from uncannyvalley.splitting import SplitModel, split
from uncannyvalley.types import OBJECTIVE_GRAD


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- columns ------------------------------------------------------------------------------------------


@pytest.fixture
def exact(small_net: nn.Sequential) -> tuple[nn.Sequential, SplitModel, Tensor]:
    """``small_net`` in float64 with a head that is sure of itself, split, and six images."""
    with torch.no_grad():
        small_net[-1].weight.mul_(8)
    x = images(6, 1, 6, 6)
    return small_net.double(), split(small_net, x), x


def read(name: str, model: SplitModel, x: Tensor) -> Tensor:
    columns = make_columns([name], model)
    return columns.read(Looker(model, columns.copies)(x))[:, 0]


def rows_of(net: nn.Sequential, x: Tensor) -> list[twins.Row]:
    return [twins.Row(net, one) for one in x]


def changed(name: str, x: Tensor) -> Tensor:
    for part in name.split("+"):
        x = torch.tensor(np.ascontiguousarray(TWINS[part](x.numpy())))
    return x


def agree(found: Tensor, expected: list[float], within: float = 1e-9) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=within, atol=within)


def test_columns_of_the_image(exact: tuple[nn.Sequential, SplitModel, Tensor]) -> None:
    net, model, x = exact
    rows = rows_of(net, x)
    agree(read("log_odds", model, x), [one.log_odds(one.top) for one in rows])
    agree(read("energy", model, x), [one.energy() for one in rows])
    agree(read("log_norm", model, x), [one.log_norm() for one in rows])
    agree(read("log_relative_sharpness", model, x), [math.log(one.sharpness()) for one in rows])
    agree(read("log_gini", model, x), [math.log(one.gini()) for one in rows])


def test_class_terms_sum_to_the_sharpness(exact: tuple[nn.Sequential, SplitModel, Tensor]) -> None:
    net, model, x = exact
    shares = torch.stack([read(f"class_sharpness_{s}", model, x) for s in range(4)], dim=1)
    np.testing.assert_allclose(shares.exp(), [one.class_sharpness() for one in rows_of(net, x)], rtol=1e-9)
    torch.testing.assert_close(shares.logsumexp(dim=1), read("log_relative_sharpness", model, x))


@pytest.mark.parametrize("copy", [*TWINS, "mirror+strong_blur", "quantised+left"])
def test_columns_of_a_copy(exact: tuple[nn.Sequential, SplitModel, Tensor], copy: str) -> None:
    net, model, x = exact
    pairs = list(zip(rows_of(net, x), rows_of(net, changed(copy, x)), strict=True))
    agree(read(f"log_odds@{copy}", model, x), [there.log_odds(here.top) for here, there in pairs])
    agree(read(f"travel@{copy}", model, x), [twins.travel(*one) for one in pairs])
    agree(read(f"turn@{copy}", model, x), [twins.turn(*one) for one in pairs], 1e-7)
    agree(read(f"rise@{copy}", model, x), [twins.rise(*one) for one in pairs])
    agree(read(f"log_norm@{copy}", model, x), [there.log_norm() for _, there in pairs])


def test_several_copies_are_averaged(exact: tuple[nn.Sequential, SplitModel, Tensor]) -> None:
    _, model, x = exact
    for name in ("log_odds", "travel", "turn", "rise", "log_gini"):
        alone = [read(f"{name}@{copy}", model, x) for copy in ("mirror", "left", "blur")]
        torch.testing.assert_close(read(f"{name}@mirror,left,blur", model, x), torch.stack(alone).mean(dim=0))


@pytest.mark.parametrize(
    ("walk", "upwards"), [("climb1", 1), ("climb3", 1), ("descent1", -1), ("descent2", -1)]
)
def test_columns_after_a_short_walk(
    exact: tuple[nn.Sequential, SplitModel, Tensor], walk: str, upwards: float
) -> None:
    net, model, x = exact
    there = torch.stack([twins.walked(net, one, int(walk[-1]), upwards, WALK_STEP) for one in x])
    pairs = list(zip(rows_of(net, x), rows_of(net, there), strict=True))
    agree(read(f"log_odds@{walk}", model, x), [two.log_odds(one.top) for one, two in pairs], 1e-7)
    agree(read(f"rise@{walk}", model, x), [twins.rise(*one) for one in pairs], 1e-7)
    support = read(f"log_odds@{walk}", model, x) - read("log_odds", model, x)
    assert (support * upwards < 0).all()


@pytest.mark.parametrize("layer", ["0", "3", "7"])
def test_inner_sharpness(exact: tuple[nn.Sequential, SplitModel, Tensor], layer: str) -> None:
    net, model, x = exact
    expected = [twins.inner_sharpness(net, layer, one) for one in x[:3]]
    agree(read(f"inner_sharpness@{layer}", model, x[:3]), expected, 1e-7)


def test_columns_hold_in_float32(small_net: nn.Sequential) -> None:
    x = images(6, 1, 6, 6).float()
    names = ["log_odds", "energy", "log_norm", "travel@blur", "turn@mirror", "rise@left", "class_sharpness_2"]
    model = split(small_net, x)
    plain = torch.stack([read(one, model, x) for one in names])
    exact = torch.stack([read(one, model.in_double(), x.double()) for one in names])
    torch.testing.assert_close(plain, exact, rtol=0, atol=5e-5)


def test_every_known_column_can_be_read(exact: tuple[nn.Sequential, SplitModel, Tensor]) -> None:
    """And says something: two images differ in it."""
    _, model, x = exact
    fill = {"COPY": "mirror", "LAYER": "3", "CLASS": "1"}
    for name in known_columns():
        for placeholder, one in fill.items():
            name = name.replace(placeholder, one)
        columns = make_columns([name], model)
        for reference in columns.references.values():
            reference.fit(model.features(images(60, 1, 6, 6, seed=5)), torch.zeros(60, dtype=torch.int64))
        found = columns.read(Looker(model, columns.copies)(x))[:, 0]
        assert found.abs().max() < 1e6, name
        assert found.std() > 1e-6, name


def test_flat_images_travel_nowhere_and_count_as_that(
    exact: tuple[nn.Sequential, SplitModel, Tensor],
) -> None:
    _, model, _ = exact
    even = torch.full((1, 1, 6, 6), 0.25, dtype=torch.float64)
    for name in ("travel@mirror", "turn@left"):
        assert read(name, model, even).item() < -25


def dead(constant: float = 0.0) -> nn.Sequential:
    """A network whose features are all ``constant`` on dark images."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        nn.init.normal_(net[1].weight)
        nn.init.normal_(net[3].weight)
        net[1].bias.fill_(constant - 1e-3 * (constant == 0))
    return net


@pytest.mark.parametrize(
    "name",
    ["log_odds", "log_norm", "travel@mirror", "turn@mirror", "rise@mirror", "log_relative_sharpness", "class_sharpness_1"],
)  # fmt: skip
def test_no_features_at_all_are_finite_and_so_is_their_slope(name: str) -> None:
    x = images(120, 1, 6, 6).float()
    x[:2] = 0
    detector = ImageDetector(dead(), recipe=Recipe("one", (name,), (Question("one", {name: 1.0}),)))
    detector.fit(x[2:60], x[60:])
    assert np.isfinite(detector.columns(x)[0]).all()
    prober = Prober(detector.model, x[:4], torch.zeros(4).long(), objective=detector.suspicion)
    slope = prober(x[:4], [OBJECTIVE_GRAD]).objective_grad
    assert slope is not None
    assert torch.isfinite(slope).all()


def test_a_network_that_answers_nan_is_refused_by_name(small_net: nn.Sequential) -> None:
    x = images(4, 1, 6, 6).float()
    model = split(small_net, x)
    columns = make_columns(["log_odds", "log_norm"], model)
    look = Looker(model, ())(x)
    look.probe.features[2] = torch.nan
    with pytest.raises(InputError, match="log_norm is NaN for 1 of 4 images"):
        columns.read(look)


@pytest.mark.parametrize(
    "name",
    ["", "travel", "travel@", "log_odds@", "@mirror", "travel@sideways", "travel@mirror,", "class_sharpness_4", "class_sharpness_²",
     "class_sharpness_-1", "rise@climb0", "rise@climb10", "distance_linf", "distance_l2@mirror", "log_input_gradient_norm",
     "log_third_order_remainder", "log_mahalanobis@mirror", "inner_sharpness"],
)  # fmt: skip
def test_names_that_are_no_column(name: str, exact: tuple[nn.Sequential, SplitModel, Tensor]) -> None:
    with pytest.raises(InputError, match="unknown column of a detector"):
        make_columns([name], exact[1])


def test_known_columns_are_columns(exact: tuple[nn.Sequential, SplitModel, Tensor]) -> None:
    """What an error offers is no error itself."""
    offered = [one for one in known_columns() if one in measures.available()]
    assert len(offered) > 10
    assert make_columns(offered, exact[1]).names == tuple(offered)


def test_layers_that_have_no_weights(exact: tuple[nn.Sequential, SplitModel, Tensor]) -> None:
    for name, says in (
        ("9", "unknown layer '9'"),
        ("2", "layer '2' is of type ReLU"),
        ("input", "input has none"),
    ):
        with pytest.raises(InputError, match=says):
            make_columns([f"inner_sharpness@{name}"], exact[1])


def test_no_columns_at_all(exact: tuple[nn.Sequential, SplitModel, Tensor]) -> None:
    with pytest.raises(InputError, match="at least one column"):
        make_columns([], exact[1])


# --- columns with a memory ----------------------------------------------------------------------------


def fitted(
    reference: Mahalanobis | LocalDimension, count: int
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Features and classes that were fitted, and the column as a function of features."""
    draw = np.random.default_rng(0)
    classes = draw.integers(0, 3, count)
    features = draw.normal(size=(count, 5)) * [1, 2, 3, 1, 1] + 0.8 * classes[:, None]
    reference.fit(torch.tensor(features), torch.tensor(classes))

    def column(points: np.ndarray) -> np.ndarray:
        model = split(
            nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 3)).double().eval(), torch.rand(8, 5).double()
        )
        look = Looker(model, ())(torch.zeros(len(points), 5))
        object.__setattr__(look.probe, "features", torch.tensor(points))
        return reference(look.probe).numpy()

    return features, classes, column


def test_mahalanobis_is_that_of_its_source() -> None:
    """Lee et al. 2018: each row less the mean of its own class makes the one covariance."""
    from sklearn.covariance import ledoit_wolf

    features, classes, column = fitted(Mahalanobis(), 400)
    means = np.stack([features[classes == c].mean(axis=0) for c in range(3)])
    precision = np.linalg.inv(ledoit_wolf(features - means[classes], assume_centered=True)[0])
    points = np.random.default_rng(1).normal(size=(7, 5)) * 3
    expected = [min((one - m) @ precision @ (one - m) for m in means) for one in points]
    np.testing.assert_allclose(column(points), np.log(expected), rtol=1e-8)


def test_a_class_with_few_images_has_no_mean() -> None:
    reference = Mahalanobis()
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(40, 3, generator=draw, dtype=torch.float64)
    reference.fit(features, torch.tensor([0] * 35 + [1] * 5))
    assert len(reference.means) == 1
    reference.fit(features[:9], torch.zeros(9, dtype=torch.int64))
    torch.testing.assert_close(reference.means, features[:9].mean(dim=0, keepdim=True))


def test_local_dimension_by_its_definition() -> None:
    features, _, column = fitted(LocalDimension(), 300)
    points = np.random.default_rng(1).normal(size=(40, 5))
    expected = [twins.local_dimension(one, features, NEIGHBOURS) for one in points]
    np.testing.assert_allclose(column(points), expected, rtol=1e-7)


def test_an_image_is_not_its_own_neighbour() -> None:
    """Fitted rows, in float32 and read again in another batch, have the dimension that the others give them."""
    features, _, column = fitted(LocalDimension(), 200)
    expected = [
        twins.local_dimension(one, np.delete(features, i, axis=0), NEIGHBOURS)
        for i, one in enumerate(features)
    ]
    np.testing.assert_allclose(column(features), expected, rtol=1e-6)
    jitter = 1 + 1e-7 * np.random.default_rng(2).normal(size=features.shape)
    np.testing.assert_allclose(column(features * jitter), expected, rtol=1e-4)


def test_local_dimension_finds_the_dimension() -> None:
    draw = np.random.default_rng(0)
    for dimension in (2, 8):
        reference = LocalDimension()
        plane = np.zeros((3000, 20))
        plane[:, :dimension] = draw.uniform(size=(3000, dimension))
        reference.fit(torch.tensor(plane), torch.zeros(3000, dtype=torch.int64))
        assert len(reference.kept) <= KEPT_ROWS
        probe = Looker(split(nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 2)).double().eval(), torch.rand(8, 20).double()), ())(torch.zeros(50, 20)).probe  # fmt: skip
        inside = np.zeros((50, 20))
        inside[:, :dimension] = draw.uniform(0.3, 0.7, size=(50, dimension))
        object.__setattr__(probe, "features", torch.tensor(inside))
        assert reference(probe).mean().exp().item() == pytest.approx(dimension, rel=0.25)


def test_columns_say_what_they_cost(exact: tuple[nn.Sequential, SplitModel, Tensor]) -> None:
    names = [
        "log_odds@mirror,left",
        "travel@left",
        "rise@climb2",
        "rise@climb1",
        "rise@descent3",
        "inner_sharpness@3",
    ]
    found: Columns = make_columns(names, exact[1])
    assert found.copies == ("mirror", "left", "climb2", "climb1", "descent3")
    assert found.layers == ("3",)
    looker = Looker(exact[1], found.copies)
    assert (looker.forwards, looker.backwards) == (1 + 2 + 2 + 3, 2 + 3 - 1)
