"""A detector in production: one module, its exports, and the policy around it."""

import json
import logging
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import served_detectors
from uncannyvalley import measures
from uncannyvalley.detect.curves import Curves, normal_scores
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.questions import Question
from uncannyvalley.detect.recipes import Recipe, recipe_of
from uncannyvalley.detect.serving.export import export_onnx
from uncannyvalley.detect.serving.module import DetectorModule
from uncannyvalley.detect.serving.monitor import Monitor
from uncannyvalley.detect.serving.policy import Policy
from uncannyvalley.detect.serving.scoring import Lines
from uncannyvalley.errors import InputError

COLUMNS = "log_relative_sharpness"


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def strange(count: int) -> Tensor:
    """Black and white pixels: far from what a detector fitted to grey noise has seen."""
    return images(count, 9).round()


def fitted(net: nn.Module, **settings: object) -> ImageDetector:
    return ImageDetector(net, **settings).fit(images(80, 3), images(60, 4))  # type: ignore[arg-type]


def mixed() -> Tensor:
    return torch.cat([images(20, 5), strange(20)])


def sure(net: nn.Sequential, gap: float) -> nn.Sequential:
    """The network with its logits multiplied, so that its surest row leads by so many nats."""
    head = net[-1]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        best = net(mixed()).topk(2).values
        times = gap / (best[:, 0] - best[:, 1]).max()
        head.weight *= times
        head.bias *= times
    return net


def exact_sharpness(detector: ImageDetector, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        look = detector.fitted.looker(x)
        return measures.available()[COLUMNS](look.probe).numpy()


def check_equal(found: tuple[object, ...], detector: ImageDetector, x: Tensor) -> None:
    logits, sharpness, p_values, flags = (np.asarray(one) for one in found[:4])
    assert np.allclose(logits, detector.model.logits_of(x).numpy(), rtol=1e-4, atol=1e-4)
    assert np.allclose(
        sharpness, exact_sharpness(detector, x), rtol=1e-4, atol=1e-4
    )  # as the logits it is made of
    assert np.abs(p_values - detector.p_values(x)).max() < 1e-4
    assert (flags == (detector.predict(x) == -1)).all()


@pytest.mark.parametrize("budget", [1, 2, 4, 6])
def test_the_module_says_what_the_detector_says(small_net: nn.Module, budget: int) -> None:
    detector = fitted(small_net, recipe=recipe_of(budget), fpr=0.1)
    module, x = DetectorModule(detector), mixed()
    verdict, suspicion = module.scored(x)
    check_equal(verdict, detector, x)
    assert 0 < int(verdict.flag.sum()) < len(x)
    assert np.allclose(suspicion.numpy(), -detector.score_samples(x), rtol=1e-5, atol=1e-5)
    assert module(x[:1]).p_value.item() == pytest.approx(detector.p_values(x[:1])[0])


def test_any_question_and_column_fits_into_the_module(small_net: nn.Module) -> None:
    """Two-sided and one-sided questions with given columns and weights, references, noise after a change."""
    columns = (
        "energy",
        "log_mahalanobis",
        "log_odds@mirror+noise2",
        "log_norm",
        "travel@up,down",
        "log_gini",
    )
    questions = (
        Question(
            "low", {"energy": 0.5, "log_gini": -2.0}, "low", ("log_norm", "log_mahalanobis"), weight=0.7
        ),
        Question("both", {"log_mahalanobis": 1.0, "log_odds@mirror+noise2": 1.0}),
        Question("high", {"travel@up,down": 1.0}, "high", weight=2.0),
    )
    detector = fitted(small_net, recipe=Recipe("mixed", columns, questions), fpr=0.1, seed=5)
    module, x = DetectorModule(detector), mixed()
    check_equal(module(x), detector, x)
    assert np.allclose(module.scored(x)[1].numpy(), -detector.score_samples(x), rtol=1e-5, atol=1e-5)


def test_log_kappa_stays_exact_where_float32_sees_only_certainty(small_net: nn.Sequential) -> None:
    for gap in (50.0, 700.0, 3000.0):
        net = sure(small_net, gap)
        detector = fitted(net)
        x = mixed()
        verdict = DetectorModule(detector)(x)
        exact = exact_sharpness(detector, x)
        assert exact.min() < 20 - gap
        assert np.allclose(verdict.log_relative_sharpness.numpy(), exact, rtol=1e-6)
        check_equal(verdict, detector, x)


def test_a_real_network(
    correct_cifar: tuple[nn.Module, Tensor, Tensor], cifar: tuple[Tensor, Tensor]
) -> None:
    net, x, _ = correct_cifar
    detector = ImageDetector(net, fpr=0.1).fit(cifar[0][100:180], cifar[0][200:260])
    seen = torch.cat([x[:32], (x[:32] + 0.1 * torch.randn_like(x[:32]).sign()).clamp(0, 1)])
    check_equal(DetectorModule(detector)(seen), detector, seen)


@pytest.fixture(scope="module")
def served() -> dict[str, dict[str, float]]:
    """What compiled and exported modules differ by from their detectors."""
    program = Path(served_detectors.__file__)
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize(
    "kind", [f"{engine}, {kind[0]}" for engine, kinds in served_detectors.KINDS.items() for kind in kinds]
)
def test_compiled_and_exported_modules_say_the_same(kind: str, served: dict[str, dict[str, float]]) -> None:
    """Without a graph break, for any batch size; broken, grey and flat images included."""
    if kind not in served:
        pytest.skip("onnxruntime and onnxscript are not installed")
    assert list(served[kind]) == list(served_detectors.NAMES)
    assert max(served[kind].values()) < 1e-4, served[kind]


def test_what_the_detector_adds_is_few_operations(small_net: nn.Module) -> None:
    """At batch 1 each costs microseconds: this guards the cost where a clock would guard the machine."""
    module = DetectorModule(fitted(small_net))

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if not any(view in str(func) for view in ("slice", "view", "select", "unbind", "squeeze", ".t.")):
                Count.calls += 1
            return func(*args, **(kwargs or {}))

    x = images(1, 1)
    with torch.no_grad(), Count():
        module.logits(x)
        alone, Count.calls = Count.calls, 0
        module(x)
    assert Count.calls - alone <= 28


def test_lines_are_the_curves_themselves() -> None:
    draw = np.random.default_rng(0)
    values = np.stack([draw.normal(size=300), draw.integers(0, 3, 300), draw.exponential(size=300)], axis=1)
    curves = normal_scores(values)
    outside = torch.tensor(np.concatenate([values, draw.normal(0, 9, size=(200, 3)), curves.at.numpy().T]))
    assert torch.allclose(Lines(curves)(outside), curves(outside), rtol=1e-12, atol=1e-12)
    one = Curves(curves.at[:1], curves.to[:1], curves.before[:1], curves.after[:1])
    assert torch.allclose(Lines(one)(outside[:, :1]), one(outside[:, :1]), rtol=1e-12, atol=1e-12)


def test_nan_is_flagged_and_later_changes_of_the_detector_do_not_reach_the_module(
    small_net: nn.Module,
) -> None:
    detector = fitted(small_net)
    module, x = DetectorModule(detector), mixed()
    before = module(x)
    broken = x.clone()
    broken[2] = torch.nan
    after = module(broken)
    assert after.flag[2]
    assert after.p_value[2] == pytest.approx(1 / 61)
    detector.fit(strange(80), images(60, 8).round())
    assert torch.equal(module(x).p_value, before.p_value)


@pytest.mark.parametrize("column", ["log_odds@climb1", "inner_sharpness@3"])
def test_recipes_that_need_gradients_are_refused(small_net: nn.Module, column: str) -> None:
    recipe = Recipe("walk", (column,), (Question("one", {column: 1.0}),))
    with pytest.raises(InputError, match="needs gradients"):
        DetectorModule(fitted(small_net, recipe=recipe))


def test_exports_refuse_other_shapes_and_missing_packages(
    small_net: nn.Module, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    module = DetectorModule(fitted(small_net))
    with pytest.raises(InputError, match=r"images of shape \(1, 6, 6\)"):
        export_onnx(module, f"{tmp_path}/a.onnx", torch.rand(2, 1, 7, 7))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"uncannyvalley\[onnx\]"):
        export_onnx(module, f"{tmp_path}/a.onnx", images(1, 1))


@pytest.mark.parametrize("wrap", [DetectorModule, lambda detector: detector])
def test_each_mode_answers_as_promised(small_net: nn.Module, wrap: object) -> None:
    detector = fitted(small_net, fpr=0.1)
    x = mixed()
    bad = detector.predict(x) == -1
    classes = detector.model.logits_of(x).argmax(dim=1).numpy()
    for mode in ("shadow", "flag", "reject"):
        monitor = Monitor.of(detector)
        policy = Policy(wrap(detector), mode=mode, monitor=monitor)  # type: ignore[operator]
        found = policy(x)
        expected = np.where(bad, -1, classes) if mode == "reject" else classes
        assert [one.answer for one in found] == expected.tolist()
        assert [one.flag for one in found] == (bad & (mode != "shadow")).tolist()
        assert np.allclose([one.p_value for one in found], detector.p_values(x))
        assert np.allclose(
            [one.log_relative_sharpness for one in found], exact_sharpness(detector, x), rtol=1e-4
        )
        flagged, rejected = (0 if mode == "shadow" else bad.sum()), (bad.sum() if mode == "reject" else 0)
        assert policy.counts == {
            "images": 40, "checked": 40, "unchecked": 0, "suspicious": bad.sum(), "flagged": flagged, "rejected": rejected,
        }  # fmt: skip
        assert (monitor.seen, monitor.flag_rate.flagged) == (40, bad.sum())


@pytest.mark.parametrize("wrap", [DetectorModule, lambda detector: detector])
def test_one_bad_image_does_not_switch_off_the_checks_of_its_batch(
    small_net: nn.Module, wrap: object, caplog: pytest.LogCaptureFixture
) -> None:
    detector = fitted(small_net, fpr=0.1)
    x = mixed()
    whole = [one.p_value for one in Policy(wrap(detector))(x)]  # type: ignore[operator]
    x[7] = torch.nan
    for mode, on_error, answer in (
        ("reject", "open", None),
        ("reject", "closed", -1),
        ("shadow", "closed", None),
    ):
        policy = Policy(wrap(detector), mode=mode, on_error=on_error, monitor=Monitor.of(detector))  # type: ignore[operator]
        with caplog.at_level(logging.WARNING):
            found = policy(x)
        assert not found[7].is_checked
        assert found[7].reason
        assert (found[7].answer == -1) == (answer == -1)
        assert np.allclose([one.p_value for i, one in enumerate(found) if i != 7], whole[:7] + whole[8:])
        assert policy.counts["unchecked"] == 1
        assert policy.monitor is not None
        assert policy.monitor.seen == 39
    assert "not checked" in caplog.text


def test_a_detector_that_breaks_fails_open_or_closed(
    small_net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = fitted(small_net)
    module, x = DetectorModule(detector), images(3, 5)

    def broken(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(module.scoring, "judged", broken)
    stands = Policy(module, mode="reject", on_error="open")(x)
    assert [one.answer for one in stands] == detector.model.logits_of(x).argmax(dim=1).tolist()
    assert {(one.is_checked, one.flag, one.reason) for one in stands} == {
        (False, False, "RuntimeError: out of order")
    }
    assert all(one.answer == -1 and one.flag for one in Policy(module, mode="flag", on_error="closed")(x))


@pytest.mark.parametrize("wrap", [DetectorModule, lambda detector: detector])
def test_images_of_another_shape_are_unchecked_and_no_batch_is_refused(wrap: object) -> None:
    """Also where the network itself would take them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    policy = Policy(wrap(fitted(net.eval())), mode="flag", on_error="closed")  # type: ignore[operator]
    for one in policy(torch.rand(2, 1, 7, 6)):
        assert (one.answer, one.flag, one.is_checked) == (-1, True, False)
        assert "(1, 7, 6)" in one.reason
        assert "(1, 6, 6)" in one.reason
    assert policy(torch.rand(0, 1, 6, 6)) == []
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(InputError, match=r"batch of images \(n, 1, 6, 6\), got a tensor \(1, 6, 6\)"):
            policy(images(1, 1)[0])
        with pytest.raises(InputError, match=r"batch of images \(n, 1, 6, 6\), got list"):
            policy([images(1, 1)])  # type: ignore[arg-type]
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_a_policy_called_from_threads_counts_every_image(small_net: nn.Module) -> None:
    detector = fitted(small_net)
    policy = Policy(DetectorModule(detector), monitor=Monitor.of(detector))
    x = mixed()
    threads = [threading.Thread(target=lambda: [policy(x[i : i + 5]) for i in range(40)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = 4 * sum(len(x[i : i + 5]) for i in range(40))
    assert policy.counts["images"] == expected
    assert policy.monitor is not None
    assert policy.monitor.seen == expected


def test_a_policy_refuses_unknown_modes(small_net: nn.Module) -> None:
    detector = fitted(small_net)
    with pytest.raises(InputError, match="mode must be one of shadow, flag, reject"):
        Policy(detector, mode="block")
    with pytest.raises(InputError, match="on_error must be one of open, closed"):
        Policy(detector, on_error="ajar")
    assert replace(Policy(detector)(images(1, 1))[0], answer=0).is_checked
