"""The detector on images: its signature, its promise about rows, its cost, and whom it trusts."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import uncannyvalley as uv
from detector_cases import INNER, REMEMBERING, WALKING, images, recipe
from uncannyvalley import ImageDetector, InputError, zoo
from uncannyvalley.detect.recipes import LARGEST_BUDGET, MOVES, Recipe, recipe_of
from uncannyvalley.probe import Prober
from uncannyvalley.splitting import split
from uncannyvalley.types import OBJECTIVE_GRAD


def test_the_signature_is_pinned() -> None:
    parameters = inspect.signature(ImageDetector).parameters
    assert [(one.name, one.kind, one.default) for one in parameters.values()][:4] == [
        ("net", inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty),
        ("fpr", inspect.Parameter.KEYWORD_ONLY, 0.05),
        ("budget", inspect.Parameter.KEYWORD_ONLY, 1),
        ("seed", inspect.Parameter.KEYWORD_ONLY, 0),
    ]
    assert list(inspect.signature(ImageDetector.fit).parameters) == ["self", "x_clean", "calibration"]
    assert inspect.signature(ImageDetector.fit).parameters["calibration"].default is None
    for name in ("p_values", "score_samples", "predict"):
        assert list(inspect.signature(getattr(ImageDetector, name)).parameters) == ["self", "x"]
    assert uv.ImageDetector is ImageDetector


@pytest.fixture(params=[1, 4, 16])
def detector(request: pytest.FixtureRequest, small_net: nn.Module) -> ImageDetector:
    return ImageDetector(small_net, budget=request.param).fit(images(120), images(80, seed=1))


def test_what_it_returns(detector: ImageDetector) -> None:
    x = images(40, seed=2)
    scores, p, flags = detector.score_samples(x), detector.p_values(x), detector.predict(x)
    assert (scores.shape, scores.dtype, p.shape, p.dtype, flags.shape) == (
        (40,),
        np.float64,
        (40,),
        np.float64,
        (40,),
    )
    assert set(flags) <= {1, -1}
    assert ((flags == -1) == (p <= detector.fpr)).all()
    assert ((flags == -1) == (-scores > detector.threshold)).all()
    rows, classes = detector.columns(x)
    assert rows.shape == (40, len(detector.recipe.columns))
    assert (classes == detector.model.logits_of(x).argmax(dim=1).numpy()).all()
    parts = detector.explain(x)
    assert list(parts) == [one.name for one in detector.recipe.questions]
    np.testing.assert_allclose(sum(parts.values()), -scores)


# --- a row's answer is its own ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [1, 4, 16, WALKING, INNER, REMEMBERING], ids=lambda one: getattr(one, "columns", [one])[0]
)
def test_a_row_alone_in_any_batch_and_any_order(kind: int | Recipe, small_net: nn.Module) -> None:
    """In float64, where nothing but a true dependence is left."""
    settings = {"budget": kind} if isinstance(kind, int) else {"recipe": kind}
    found = ImageDetector(split(small_net, images(8)).in_double(), **settings).fit(
        images(120), images(40, seed=1)
    )
    x = images(30, seed=2)
    together = found.score_samples(x)
    np.testing.assert_allclose([found.score_samples(one[None])[0] for one in x], together, atol=1e-7)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(found.score_samples(x[order]), together[order.numpy()], atol=1e-7)
    found.batch_size = 7
    np.testing.assert_allclose(found.score_samples(x), together, atol=1e-7)
    np.testing.assert_allclose(
        found.score_samples(torch.cat([x[:1].expand(20, -1, -1, -1), x])[20:]), together, atol=1e-7
    )


def test_a_row_alone_on_a_real_network(correct_cifar: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, _ = correct_cifar
    found = ImageDetector(net, budget=4).fit(x[:50], x[:20].flip(3))
    rows, _ = found.columns(x[:10])
    alone = np.concatenate([found.columns(one[None])[0] for one in x[:10]])
    np.testing.assert_allclose(alone, rows, atol=1e-5)


# --- seeds --------------------------------------------------------------------------------------------


def test_the_seed_decides_everything(small_net: nn.Module) -> None:
    x, fresh = images(220), images(20, seed=2)
    noisy = recipe("log_odds", "travel@noise")
    first = ImageDetector(small_net, recipe=noisy, seed=7).fit(x)
    torch.manual_seed(99)
    again = ImageDetector(small_net, recipe=noisy, seed=7).fit(x)
    assert np.array_equal(first.score_samples(fresh), again.score_samples(fresh))
    assert first.threshold == again.threshold
    other = ImageDetector(small_net, recipe=noisy, seed=8).fit(x)
    assert not np.array_equal(first.score_samples(fresh), other.score_samples(fresh))
    assert not np.array_equal(first.columns(fresh)[0][:, 1], other.columns(fresh)[0][:, 1])
    assert np.array_equal(first.columns(fresh)[0][:, 0], other.columns(fresh)[0][:, 0])


def test_the_largest_seed(small_net: nn.Module) -> None:
    found = ImageDetector(small_net, seed=2**63 - 1, recipe=REMEMBERING).fit(images(120))
    assert np.isfinite(found.score_samples(images(5, seed=1))).all()


def test_nothing_outside_is_touched(small_net: nn.Module) -> None:
    x = images(120)
    kept, weights = x.clone(), [one.clone() for one in small_net.state_dict().values()]
    state, grad, default = torch.get_rng_state(), torch.is_grad_enabled(), torch.get_default_dtype()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    found = ImageDetector(small_net, budget=16).fit(x)
    found.predict(x)
    found.explain(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == (grad, default)
    assert torch.equal(x, kept)
    assert all(map(torch.equal, weights, small_net.state_dict().values()))
    assert not any(one.grad is not None for one in small_net.parameters())
    assert not any(module._forward_hooks for module in small_net.modules())


def test_inputs_that_carry_a_graph(small_net: nn.Module) -> None:
    """Images that require a gradient, and callers without gradients at all, get the same numbers."""
    for kind in (recipe("log_odds", "travel@mirror"), WALKING, INNER):
        found = ImageDetector(small_net, recipe=kind).fit(images(120), images(40, seed=1))
        x = images(6, seed=2)
        plain = found.score_samples(x)
        assert np.array_equal(found.score_samples(x.clone().requires_grad_()), plain)
        with torch.no_grad():
            assert np.array_equal(found.score_samples(x), plain)
        with torch.inference_mode():
            np.testing.assert_allclose(found.score_samples(x), plain)
        assert np.array_equal(found.score_samples(x.numpy()), plain)
        np.testing.assert_allclose(found.score_samples(x.double()), plain)


# --- what it costs ------------------------------------------------------------------------------------


class Calls:
    forwards = 0
    backwards = 0


@contextmanager
def counted(detector: ImageDetector) -> Iterator[Calls]:
    """Calls of the network, and of autograd, while the block runs."""
    calls, grad = Calls(), torch.autograd.grad

    def called(*_: object) -> None:
        calls.forwards += 1

    def graded(*args: object, **settings: object) -> tuple[Tensor, ...]:
        calls.backwards += 1
        return grad(*args, **settings)

    bodies = {id(one): one for one in (detector.model.module, detector.model.plain)}.values()
    hooks = [one.register_forward_hook(called) for one in bodies]
    try:
        with mock.patch.object(torch.autograd, "grad", graded):
            yield calls
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("budget", range(1, 17))
def test_budgets_cost_what_they_say(budget: int, small_net: nn.Module) -> None:
    found = ImageDetector(small_net, budget=budget).fit(images(60), images(20, seed=1))
    with counted(found) as calls:
        found.predict(images(9, seed=2))
    assert (calls.forwards, calls.backwards) == (found.forwards, found.backwards)
    assert found.forwards + found.backwards <= budget
    assert found.forwards == min(budget, 1 + len(MOVES))
    with counted(found) as calls:
        prober = Prober(found.model, images(3), torch.zeros(3).long(), objective=found.suspicion)
        prober(images(3), [OBJECTIVE_GRAD])
    assert (calls.forwards, calls.backwards) == (found.forwards, found.backwards + 1)


@pytest.mark.parametrize("kind", [WALKING, INNER], ids=["walking", "inner"])
def test_walks_and_layers_cost_what_they_say(kind: Recipe, small_net: nn.Module) -> None:
    found = ImageDetector(small_net, recipe=kind).fit(images(60), images(20, seed=1))
    with counted(found) as calls:
        found.predict(images(9, seed=2))
    assert (calls.forwards, calls.backwards) == (found.forwards, found.backwards)
    assert found.backwards > 0


def test_recipes_are_fixed_by_the_budget_alone() -> None:
    for budget in range(1, LARGEST_BUDGET + 1):
        found = recipe_of(budget)
        assert found == recipe_of(budget)
        assert len(set(found.columns)) == len(found.columns)
        asked = {one for question in found.questions for one in (*question.columns, *question.given)}
        assert asked == set(found.columns)
    without = recipe_of(16, [one for one in (*MOVES, "noise") if "mirror" not in one])
    assert not any("mirror" in one or "blur" in one for one in without.columns)


# --- changes that the data do not allow ---------------------------------------------------------------


class LeftOrRight(nn.Module):
    """Says which half of an image is brighter: a mirror image is of the other class."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[5.0, -5.0], [-5.0, 5.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.stack([x[..., :4].mean(dim=(1, 2, 3)), x[..., 4:].mean(dim=(1, 2, 3))], dim=1))


def test_a_mirror_that_changes_the_class_is_left_out() -> None:
    x = images(160, 1, 8, 8) * 0.3
    x[:80, :, :, :4] += 0.5
    x[80:, :, :, 4:] += 0.5
    x = x[torch.randperm(160, generator=torch.Generator().manual_seed(0))]
    found = ImageDetector(LeftOrRight().eval(), budget=4).fit(x)
    assert not any("mirror" in one for one in found.recipe.columns)
    assert "log_odds@left,diagonal,half_shift" in found.recipe.columns
    assert found.forwards == 4
    assert any("change the class of clean images: mirror (100%)" in note for note in found.notes)


def test_digits_are_not_mirrored() -> None:
    digits = zoo.data.load("digits")
    found = ImageDetector(zoo.load("demo"), budget=6).fit(digits[:200], digits[200:350])
    assert not any("mirror" in one for one in found.recipe.columns)
    assert any("not used" in note and "mirror (" in note for note in found.notes)
    assert (found.predict(digits[350:]) == -1).mean() < 0.12


def test_a_fixed_recipe_is_not_changed_by_the_data() -> None:
    kind = recipe("log_odds", "log_odds@mirror")
    found = ImageDetector(LeftOrRight().eval(), recipe=kind).fit(images(160, 1, 8, 8))
    assert found.recipe == kind


@pytest.mark.parametrize("budget", [1, 4])
@pytest.mark.parametrize("shape", [(36,), (6, 6)])
def test_inputs_that_are_no_images(shape: tuple[int, ...], budget: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    found = ImageDetector(net, budget=budget).fit(images(120, *shape), images(60, *shape, seed=1))
    assert found.forwards == 1
    assert any("are no images" in one for one in found.notes) == (budget > 1)
    assert (found.predict(images(400, *shape, seed=2)) == -1).mean() < 0.15


def test_networks_of_two_classes_and_of_many(small_net: nn.Module) -> None:
    for classes in (2, 30):
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, classes)).eval()
        for kind in (
            recipe("log_odds", f"class_sharpness_{classes - 1}", "travel@mirror"),
            recipe("inner_sharpness@1"),
        ):
            found = ImageDetector(net, recipe=kind).fit(images(120), images(40, seed=1))
            assert np.isfinite(found.score_samples(images(50, seed=2))).all()
            with counted(found) as calls:
                found.predict(images(3))
            assert (calls.forwards, calls.backwards) == (found.forwards, found.backwards)


def test_a_class_that_no_clean_image_had(small_net: nn.Module) -> None:
    found = ImageDetector(small_net, budget=4).fit(images(120), images(40, seed=1))
    with torch.no_grad():
        classes = set(small_net(images(120)).argmax(dim=1).tolist())
        x = next(
            x
            for x in (images(400, seed=s) ** 8 for s in range(50))
            if set(small_net(x).argmax(1).tolist()) - classes
        )
    assert np.isfinite(found.score_samples(x)).all()
    probe = Prober(found.model, x, torch.zeros(400).long())(x)
    np.testing.assert_allclose(
        found.suspicion(probe).detach().numpy(), -found.score_samples(x), rtol=1e-3, atol=1e-3
    )


# --- whose detector it is -----------------------------------------------------------------------------


def test_split_models_give_the_same(small_net: nn.Module) -> None:
    x, fresh = images(120), images(20, seed=2)
    whole = ImageDetector(small_net, budget=4).fit(x, images(40, seed=1))
    parts = ImageDetector(split(small_net, x[:8]), budget=4).fit(x, images(40, seed=1))
    assert np.array_equal(whole.p_values(fresh), parts.p_values(fresh))


def test_changed_weights_are_noticed(small_net: nn.Module) -> None:
    x = images(120)
    found = ImageDetector(small_net).fit(x)
    with torch.no_grad():
        small_net[-1].weight.mul_(3)
    for call in (found.predict, found.p_values, found.score_samples, found.explain, found.columns):
        with pytest.raises(InputError, match="weights changed"):
            call(x)
    with pytest.raises(InputError, match="weights changed"):
        found.recalibrate(x, 0.1)
    assert np.isfinite(found.fit(x).score_samples(x)).all()  # fitted anew, it belongs to the new weights


def test_a_fit_that_fails_leaves_the_old_one(small_net: nn.Module) -> None:
    x = images(120)
    found = ImageDetector(small_net, budget=4).fit(x)
    before, notes = found.p_values(x), list(found.notes)
    found.budget = 1
    for calibration in (images(5), images(60, 1, 7, 7), images(60) * 2):
        with pytest.raises(InputError):
            found.fit(x[:60], calibration)
    assert np.array_equal(found.p_values(x), before)
    assert found.notes == notes


# --- halves, recalibration, and what is promised ------------------------------------------------------


def test_without_calibration_images_are_split_and_it_says_so(small_net: nn.Module) -> None:
    found = ImageDetector(small_net).fit(images(201))
    assert len(found.calibration.scores) == 101
    assert "fitted on 100 of the 201 clean images, threshold from the other 101" in found.notes[0]
    assert "not trained on" in found.notes[0]
    assert ImageDetector(small_net).fit(images(100), images(60, seed=1)).notes == []


def test_calibration_images_that_were_fitted_are_noticed(small_net: nn.Module) -> None:
    held = torch.cat([images(100)[:7], images(60, seed=1)])
    (note,) = ImageDetector(small_net).fit(images(100), held).notes
    assert note.startswith("7 of the 67 calibration images are also among those fitted")
    with pytest.raises(InputError, match="60 of the 60 calibration images are also among those fitted"):
        ImageDetector(small_net).fit(images(100), images(60))


def test_the_threshold_comes_from_calibration_alone(small_net: nn.Module) -> None:
    x, held = images(120), images(100, seed=1)
    found = ImageDetector(small_net, fpr=0.1, budget=4).fit(x, held)
    assert (found.predict(held) == -1).sum() == 9  # ⌊0.1 · 101⌋ − 1
    low, high = found.calibration.interval()
    assert low < 0.1 < high


def test_recalibration_moves_the_threshold_only(small_net: nn.Module) -> None:
    found = ImageDetector(small_net, budget=4).fit(images(120), images(100, seed=1))
    fresh, traffic = images(30, seed=2), images(200, seed=3) ** 2
    scores, before = found.score_samples(fresh), found.threshold
    assert (found.predict(traffic) == -1).mean() > 0.05
    assert found.recalibrate(traffic, 0.0) is found
    assert (found.predict(traffic) == -1).mean() <= 0.05
    assert found.threshold > before
    assert np.array_equal(found.score_samples(fresh), scores)
    loose = found.threshold
    found.recalibrate(traffic, 0.2)
    assert found.calibration.contamination == 40
    assert found.threshold >= loose  # fewer clean rows are sure, so fewer may be flagged
    assert ((found.p_values(fresh) <= 0.05) == (found.predict(fresh) == -1)).all()


def test_strong_attacks_are_seen_on_a_real_network(
    correct_cifar: tuple[nn.Module, Tensor, Tensor], cifar: tuple[Tensor, Tensor]
) -> None:
    """PGD at 8/255, no attack seen before; a detector that scored at random would not pass."""
    net, x, y = correct_cifar
    found = ImageDetector(net, budget=4).fit(cifar[0][100:180], cifar[0][180:250])
    x, y = x[:16], y[:16]
    point = x.clone()
    for _ in range(6):
        point.requires_grad_()
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(net(point), y), point)
        point = (point.detach() + 2 / 255 * slope.sign()).clamp(x - 8 / 255, x + 8 / 255).clamp(0, 1)
    pushed, clean = found.score_samples(point), found.score_samples(x)
    assert roc_auc_score(np.repeat([1, 0], 16), np.concatenate([clean, pushed])) > 0.97
    assert (found.predict(point) == -1).mean() > 0.4 + (found.predict(x) == -1).mean()
