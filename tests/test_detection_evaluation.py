"""Detectors judged: the whole report, what is read for it, and what it costs."""

import json
from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from uncannyvalley.detect.baselines import baseline
from uncannyvalley.detect.evaluation import evaluate, fit_together
from uncannyvalley.detect.evaluation.cost import PATIENCE, cost, timed_images
from uncannyvalley.detect.evaluation.outcome import FEWEST_COUNTED, Evaluation
from uncannyvalley.detect.evaluation.rates import (
    Rate,
    empirical_threshold,
)
from uncannyvalley.detect.evaluation.roc import (
    auroc,
)
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.errors import InputError


@pytest.fixture
def _as_users_run_it() -> Iterator[None]:
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def deciding_network(x: torch.Tensor, seed: int) -> nn.Module:
    """A random network that predicts each of four classes for some of the images."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 4)).eval()
    with torch.no_grad():
        net[3].weight *= 8
        net[3].bias -= net(x).mean(dim=0)
    return net


@pytest.fixture(scope="module")
def fitted_world() -> dict:
    """Detectors of a random network, images of which every seventh is misclassified, and three attacks."""
    x = torch.rand(360, 1, 6, 6, generator=torch.Generator().manual_seed(7))
    net = deciding_network(x, seed=3)
    with torch.no_grad():
        classes = net(x).argmax(dim=1)
    detectors = {
        "ours": ImageDetector(net, fpr=0.1).fit(x[:100], x[100:200]),
        "gini": ImageDetector(net, fpr=0.1, recipe=baseline("gini")).fit(x[:100], x[100:200]),
    }
    held, y = x[200:], classes[200:].clone()
    y[::7] = (y[::7] + 1) % 4
    others = torch.stack([held[classes[200:] != one][i % 20] for i, one in enumerate(classes[200:])])
    attacks = {
        "swap": others,
        "halfway": (held + others) / 2,
        "rare": torch.cat([others[:4], held[4:]]),
    }
    return {"detectors": detectors, "x": held, "y": y, "attacks": attacks, "net": net}


@pytest.fixture
def world(fitted_world: dict) -> dict:
    """The same, for a test that changes it."""
    return fitted_world | {"detectors": dict(fitted_world["detectors"])}


def run(world: dict, **settings) -> Evaluation:
    four = (world[name] for name in ("detectors", "x", "y", "attacks"))
    return evaluate(*four, **{"turns": 0, **settings})


def test_only_right_images_and_successful_attacks_count(world: dict) -> None:
    found = run(world)
    x, y, net = (world[name] for name in ("x", "y", "net"))
    detector = world["detectors"]["ours"]
    with torch.no_grad():
        right = (net(x).argmax(1) == y).numpy()
        fooled = {name: right & (net(one).argmax(1) != y).numpy() for name, one in world["attacks"].items()}
    assert (found.images, found.right) == (160, right.sum()) == (160, 137)
    flagged = {name: detector.predict(one) < 0 for name, one in (world["attacks"] | {"x": x}).items()}
    for name, outcome in found.detectors["ours"].attacks.items():
        rows = fooled[name]
        assert (outcome.tried, outcome.counted) == (137, rows.sum())
        assert outcome.flagged == Rate.where(flagged[name][rows])
        assert outcome.promised[0.05] is not None
        scores = -detector.score_samples(x)[right], -detector.score_samples(world["attacks"][name])[rows]
        assert outcome.auroc == auroc(*scores)
        assert outcome.empirical[0.05] == Rate.where(scores[1] > empirical_threshold(scores[0], 0.05))
        with torch.no_grad():
            safe = flagged[name] | (net(world["attacks"][name]).argmax(1) == y).numpy()
        assert outcome.right_or_rejected == Rate.where(safe)
    ours = found.detectors["ours"]
    assert ours.clean.right == Rate.where(flagged["x"][right])
    assert ours.clean.wrong == Rate.where(flagged["x"][~right])
    assert ours.clean.all == Rate.where(flagged["x"])
    assert ours.right_and_accepted == Rate.where(right & ~flagged["x"])
    assert sum(one.count for one in ours.by_class.values()) == ours.clean.right.count
    assert (ours.cost.forwards, ours.cost.backwards, ours.cost.timings) == (1, 0, ())


def test_a_score_at_the_threshold_is_not_flagged(world: dict) -> None:
    net, x = world["net"], torch.rand(200, 1, 6, 6, generator=torch.Generator().manual_seed(8))
    detector = ImageDetector(net, fpr=0.1).fit(x[:100], x[100:])
    at_threshold = x[100:][detector.score_samples(x[100:]) == -detector.threshold]
    assert len(at_threshold) == 1
    world |= {"detectors": {"ours": detector}, "x": x[100:], "y": net(x[100:]).argmax(1), "attacks": {}}
    flagged = run(world).detectors["ours"].clean.all
    assert flagged.count == (detector.predict(x[100:]) < 0).sum() == 9  # ⌊0.1 · 101⌋ − 1


def test_the_headline_is_the_worst_attack_that_succeeded_often_enough(world: dict) -> None:
    found = run(world)
    for outcome in found.detectors.values():
        shares = {name: one.flagged.value for name, one in outcome.attacks.items() if name != "rare"}
        assert outcome.attacks["rare"].counted < FEWEST_COUNTED
        assert outcome.worst == min(shares, key=lambda name: shares[name])
        assert outcome.headline["mean_flagged"] == pytest.approx(np.mean(list(shares.values())))
        assert outcome.headline["worst_flagged"].value == min(shares.values())
    assert any("rare got" in note and "does not enter the headline" in note for note in found.notes)


def test_shifts_controls_contrasts_and_claims_are_there(world: dict) -> None:
    x = world["x"]
    found = run(world, shifts={"dark": x * 0.9}, controls={"same": x}, eps={"swap": 1.0}, known={0.0: 0.0})
    ours, gini = found.detectors["ours"], found.detectors["gini"]
    assert ours.controls["same"] == ours.clean
    assert ours.shifts["dark"].all.out_of == 160
    against = {(one.against, one.method) for one in ours.contrasts["swap"]}
    assert against == {
        (a, m) for a in ("clean", "natural errors", "same") for m in ("all pairs", "bins", "neighbours")
    }
    plain = ours.contrasts["swap"][0]
    assert plain.auroc.value == pytest.approx(ours.attacks["swap"].auroc.value)
    gain = ours.attacks["swap"].auroc.value - gini.attacks["swap"].auroc.value
    assert plain.gains["gini"].value == pytest.approx(gain)
    assert gini.contrasts == {}
    assert gini.seen_unseen is None
    assert ours.seen_unseen is not None
    (claim,) = ours.claims
    expected = np.logical_and.reduce([
        ours.right_and_accepted.count >= claim.accuracy.count,
        ours.attacks["swap"].right_or_rejected.count >= claim.accuracy.count,
        claim.implausible == (claim.accuracy.low > 0),
    ])  # fmt: skip
    assert expected


def test_each_image_is_looked_at_once_for_all_detectors(world: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    x, model = world["x"], world["detectors"]["ours"].model
    recipes = {name: baseline(name, moves=["left", "up"]) for name in ("support", "drift", "all_jointly")}
    world["detectors"] = fit_together(model, recipes, x[:60], x[60:], fpr=0.1)
    passed: list[int] = []
    hook = model.module.register_forward_hook(lambda module, inputs, output: passed.append(len(inputs[0])))
    told: list[tuple[str, int]] = []
    totals: dict[str, int] = {}

    def progress(name: str, total: int):
        totals[name] = total
        return lambda done: told.append((name, done))

    run(world, shifts={"dark": x * 0.9}, judged=["support"], progress=progress)
    hook.remove()
    copies = {"left", "up", "noise", "noise2", "noise3", "noise4", "quantised", "median"}
    assert sum(passed) == 160 * 5 * (1 + len(copies))
    assert totals == {"reading": 160 * 5, "comparing": 2 * 160 * 3}
    for name, total in totals.items():
        assert sum(done for which, done in told if which == name) == total


@pytest.mark.parametrize("calibrated", [True, False])
def test_recipes_fitted_together_are_those_fitted_alone(world: dict, calibrated: bool) -> None:
    x, model = world["x"], world["detectors"]["ours"].model
    clean, held = (x[:60], x[60:]) if calibrated else (x, None)
    names = (
        "gini",
        "mahalanobis",
        "local_dimension",
        "feature_squeezing",
        "all_jointly",
        "drift",
        "margin_fragility",
    )
    recipes = {name: baseline(name, moves=["left", "up"]) for name in names}
    settings = {"fpr": 0.1, "seed": 5, "batch_size": 32}
    told: list[int] = []
    together = fit_together(
        model,
        recipes,
        clean,
        held,
        progress=lambda name, total: (told.append(-total), told.append)[1],
        **settings,
    )
    assert sum(told) == 0
    assert told[0] == -len(x)
    assert together.keys() == recipes.keys()
    for name, one in together.items():
        alone = ImageDetector(model, recipe=recipes[name], **settings).fit(clean, held)
        assert one.threshold == pytest.approx(alone.threshold, rel=1e-6), name
        np.testing.assert_allclose(one.score_samples(x), alone.score_samples(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="at least 50"):
        fit_together(model, recipes, x[:40], x[40:])


def test_the_report_is_plain_json(world: dict) -> None:
    found = run(world)
    again = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert again["headline"]["ours"]["worst_attack"] == found.detectors["ours"].worst
    assert (
        again["detectors"]["ours"]["attacks"]["swap"]["counted"]
        == found.detectors["ours"].attacks["swap"].counted
    )
    assert again["detectors"]["ours"]["attacks"]["swap"]["promised"]["0.01"] is None or isinstance(
        again["detectors"]["ours"]["attacks"]["swap"]["promised"]["0.01"]["value"], float
    )
    assert again["detectors"]["ours"]["attacks"]["rare"]["roc"][0][-1] == 1.0


def test_the_same_seed_gives_the_same_report(world: dict) -> None:
    assert json.dumps(run(world, seed=4).to_json()) == json.dumps(run(world, seed=4).to_json())


def test_time_is_measured_in_turns(world: dict) -> None:
    told: list[int] = []
    found = cost(world["detectors"]["ours"], world["x"], batches=(1, 16), turns=2, advance=told.append)
    assert [one.batch for one in found.timings] == [1, 16]
    assert sum(told) == timed_images(world["detectors"]["ours"], (1, 16), 2) == 17 * 3
    for one in found.timings:
        assert one.plain > 0
        assert one.ratio > 0
        assert one.elapsed > 0
    assert [one.batch for one in cost(world["detectors"]["ours"], world["x"], turns=1).timings] == [1, 128]


def test_only_judged_detectors_are_timed(world: dict) -> None:
    found = run(world, turns=1, judged=["gini"])
    assert found.detectors["ours"].cost.timings == ()
    assert len(found.detectors["gini"].cost.timings) == 2


def test_slow_decisions_are_measured_once(world: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("time.perf_counter", lambda: 2 * PATIENCE * next(clock))
    calls: list[int] = []
    monkeypatch.setattr(ImageDetector, "predict", lambda self, x: calls.append(len(x)))
    told: list[int] = []
    found = cost(world["detectors"]["ours"], world["x"], batches=(8,), turns=5, advance=told.append)
    assert calls == [8]
    assert sum(told) == 8 * 6
    assert found.timings[0].elapsed == 2 * PATIENCE


def test_slower_decisions_cost_more(world: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = world["detectors"]["ours"]
    once = cost(detector, world["x"], batches=(16,), turns=3).timings[0].ratio
    whole = ImageDetector.predict
    monkeypatch.setattr(ImageDetector, "predict", lambda self, x: [whole(self, x) for _ in range(10)])
    assert cost(detector, world["x"], batches=(16,), turns=3).timings[0].ratio > 3 * once


@pytest.mark.usefixtures("_as_users_run_it")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda world: {"detectors": {}}, "at least one fitted detector"),
        (lambda world: {"detectors": {"new": ImageDetector(world["net"])}}, "call fit"),
        (lambda world: {"attacks": {"swap": world["x"][:5]}}, "attack swap has 5 images, x has 160"),
        (lambda world: {"shifts": {"dark": world["x"][:5]}}, "shift dark has 5 images"),
        (lambda world: {"y": world["y"][:5]}, "y must have one class"),
        (lambda world: {"y": (world["net"](world["x"]).argmax(1) + 1) % 4}, "none of the images right"),
        (lambda world: {"prevalence": 0.0}, "prevalence"),
        (lambda world: {"judged": ["hours"]}, "did you mean 'ours'"),
        (lambda world: {"eps": {"swop": 0.1}}, "'swop', which was not"),
    ],
)
def test_what_cannot_be_judged_is_refused(change, says: str, world: dict) -> None:
    settings = change(world)
    world |= {name: settings.pop(name) for name in list(settings) if name in world}
    with pytest.raises(InputError, match=says):
        run(world, **settings)


def test_detectors_of_different_networks_are_refused(world: dict) -> None:
    x = torch.rand(200, 1, 6, 6)
    world["detectors"]["foreign"] = ImageDetector(deciding_network(x, seed=4), fpr=0.1).fit(x)
    with pytest.raises(InputError, match="'foreign' sees other classes than 'ours' in x"):
        run(world)
