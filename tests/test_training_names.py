"""Objectives by name, what they say of themselves, and what is refused."""

import json
import pickle
from collections.abc import Iterator

import pytest
import torch
from jaxtyping import config

import training_oracles as plain
from uncannyvalley import InputError
from uncannyvalley.attacks.streams import Streams
from uncannyvalley.train.live import LiveNetwork
from uncannyvalley.train.objectives import KINDS, Objective, erm, flat, named, pgd_at, sam, trades

EPS = 8 / 255


@pytest.fixture
def as_users_run_it() -> Iterator[None]:
    """Without the shape checks of the tests, which would refuse wrong types before the package can."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


NAMED: list[tuple[str, dict[str, str], Objective]] = [
    ("erm", {}, erm()),
    ("erm", {"loss": "squared"}, erm("squared")),
    ("squared", {}, erm("squared")),
    ("pgd-at", {"eps": "8/255"}, pgd_at(eps=EPS)),
    ("pgd-at", {"eps": "1/2", "norm": "l2", "steps": "3", "step_size": "0.1", "loss": "squared"},
     pgd_at("l2", eps=0.5, steps=3, step_size=0.1, loss="squared")),
    ("pgd-at", {}, pgd_at(eps=EPS)),
    ("trades", {"norm": "l2"}, trades("l2", eps=0.5)),
    ("trades", {"eps": "8/255", "beta": "3"}, trades(eps=EPS, beta=3.0)),
    ("erm+flatness", {"weight": "1/10"}, flat(erm(), 0.1)),
    ("erm+sam", {}, sam(erm())),
    ("pgd-at+log-flatness+sam", {"eps": "8/255", "steps": "7", "weight": "0.1", "rho": "0.2"},
     sam(flat(pgd_at(eps=EPS), 0.1, log=True), 0.2)),
    ("trades + sam + flatness", {"eps": "8/255", "weight": "2"}, flat(sam(trades(eps=EPS)), 2.0)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "arguments", "expected"), NAMED, ids=lambda one: getattr(one, "name", None))
def test_names(text: str, arguments: dict[str, str], expected: Objective) -> None:
    assert named(text, arguments) == expected


@pytest.mark.parametrize("objective", [one[2] for one in NAMED], ids=lambda one: one.name)
def test_a_name_and_settings_say_everything(objective: Objective) -> None:
    """They survive JSON, and the objective survives being sent to another process."""
    assert json.loads(json.dumps(objective.settings)) == objective.settings
    assert pickle.loads(pickle.dumps(objective)) == objective
    x, y = plain.images()
    first, again = (
        one.loss(LiveNetwork(plain.small(), "head"), x, y, Streams(0, range(6), 0, 0)).total
        for one in (objective, pickle.loads(pickle.dumps(objective)))
    )
    assert torch.equal(first, again)
    parts = set(objective.name.split("+"))
    known = {kind.removeprefix("+") for kind in KINDS}
    assert parts <= known
    given = {
        name: str(value) for name, value in objective.settings.items() if name not in ("flatness", "loss")
    }
    assert named(objective.name, given | ({"loss": "squared"} if objective.name == "pgd-at" and objective.settings["loss"] == "squared" else {})) == objective  # fmt: skip


def test_every_kind_can_be_made() -> None:
    for kind in KINDS:
        base = kind if not kind.startswith("+") else "erm" + kind
        arguments = {"weight": "0.1"} if "flatness" in base else {}
        assert named(base, arguments).name == base


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        ("pgd_at", {"eps": "0.1"}, r"unknown objective 'pgd_at'; did you mean 'pgd-at'\? Known: erm, pgd-at"),
        ("", {}, "unknown objective ''"),
        ("flatness", {"weight": "1"}, "unknown objective 'flatness'"),
        ("erm+", {}, "unknown wrapper of objectives ''"),
        ("erm+trades", {"eps": "0.1"}, "unknown wrapper of objectives 'trades'"),
        ("erm+flatnes", {"weight": "1"}, r"unknown wrapper of objectives 'flatnes'; did you mean 'flatness'\?"),
        ("erm+log-flatness", {}, "'log-flatness' needs weight; give it, for example weight=0.1"),
        ("erm", {"eps": "0.1"}, "unknown argument of the objective 'erm', 'eps'"),
        ("erm+sam", {"weight": "0.1"}, r"unknown argument of the objective 'erm\+sam', 'weight'.*Known: loss, rho"),
        ("pgd-at", {"esp": "0.1"}, r"'esp'; did you mean 'eps'\?"),
        ("pgd-at", {"eps": "much"}, "'much' is no number; write it as 0.03 or as 8/255"),
        ("pgd-at", {"eps": "0.1", "steps": "2.5"}, "'2.5' is no whole number"),
        ("pgd-at", {"eps": "0.1", "steps": "0"}, "steps must be a whole number of at least 1, got 0"),
        ("pgd-at", {"eps": "-0.1"}, "eps must be a finite number above 0"),
        ("pgd-at", {"eps": "0.1", "step_size": "0"}, "step_size must be a finite number above 0"),
        ("pgd-at", {"eps": "0.1", "norm": "l3"}, "unknown norm 'l3'"),
        ("pgd-at", {"eps": "0.1", "loss": "squarred"}, r"unknown loss 'squarred'; did you mean 'squared'\?"),
        ("trades", {"eps": "0.1", "beta": "-1"}, "beta must be a finite number above 0"),
        ("erm+flatness", {"weight": "-1"}, "weight of flatness must be a finite number, 0 or more"),
        ("erm+flatness+log-flatness", {"weight": "1"}, r"'erm\+flatness' has flatness in it already"),
        ("erm+sam+sam", {}, r"'erm\+sam' has sam in it already"),
        ("erm+sam", {"rho": "0"}, "rho must be a finite number above 0"),
    ],
)  # fmt: skip
def test_names_that_cannot_be(text: str, arguments: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        named(text, arguments)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, None, "0.1", True])
def test_numbers_that_cannot_be(value: object) -> None:
    with pytest.raises(InputError, match="weight of flatness"):
        flat(erm(), value)
    with pytest.raises(InputError, match="rho must be"):
        sam(erm(), value)
    with pytest.raises(InputError, match="beta must be"):
        trades(eps=0.1, beta=value)
    with pytest.raises(InputError, match="eps"):
        pgd_at(eps=value)
    if value is not None:
        with pytest.raises(InputError, match="step_size"):
            pgd_at(eps=0.1, step_size=value)
    with pytest.raises(InputError, match="steps must be a whole number"):
        trades(eps=0.1, steps=value if not isinstance(value, float) else 1.5)
    with pytest.raises(InputError, match="unknown loss"):
        erm(str(value))


def test_a_weight_of_zero_is_a_control() -> None:
    net, (x, y) = plain.small(), plain.images()
    draws = Streams(0, range(6), 0, 0)
    plainly, with_part = (
        one.loss(LiveNetwork(net, "head"), x, y, draws) for one in (erm(), flat(erm(), 0.0))
    )
    assert with_part.total.item() == plainly.total.item()
    assert with_part.parts["sharpness"] > 0


def test_the_default_step_reaches_every_point_of_the_ball() -> None:
    assert pgd_at(eps=0.2, steps=5).settings["step_size"] == pytest.approx(0.1)
    assert trades(eps=0.2, steps=10).settings["step_size"] == pytest.approx(0.05)
