"""Attacks of other libraries under the watcher: from the clean image to what they return, every query with its owner."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from test_no_side_effects import assert_same, state_of
from truth import Scene, close, directions, measured_afresh, pgd
from uncannyvalley import InputError, matching, watching
from uncannyvalley.adversaries import ADVERSARIES, Adversary, by_name
from uncannyvalley.adversaries.containment import library
from uncannyvalley.measures import resolve
from uncannyvalley.types import Measure
from uncannyvalley.watching import add_counts, watch, watch_batch

NAMES = ["log_relative_sharpness", "margin", "distance_linf", "distance_l2"]

QUICK = {
    "apgd-ce": ("linf", {"eps": 8 / 255, "steps": 4}),
    "apgd-dlr": ("l2", {"eps": 0.5, "steps": 4}),
    "fab": ("linf", {"eps": 8 / 255, "steps": 2}),
    "square": ("linf", {"eps": 8 / 255, "queries": 25}),
    "autoattack": ("linf", {"eps": 8 / 255, "queries": 20, "targets": 1}),
    "cw": ("l2", {"steps": 8, "binary_search_steps": 2, "initial_const": 1.0}),
    "deepfool": ("linf", {"eps": 8 / 255, "steps": 4}),
    "ddn": ("l2", {"steps": 10}),
    "fmn": ("linf", {"steps": 10}),
    "nes": ("linf", {"eps": 8 / 255, "queries": 30, "samples": 10}),
    "boundary": ("l2", {"queries": 40, "directions": 3}),
    "hopskipjump": ("l2", {"queries": 80, "directions": 3, "initial_gradient_eval_steps": 10}),
}  # fmt: skip


def quick(name: str) -> Adversary:
    norm, options = QUICK[name]
    return by_name(name)(norm, **options)


@pytest.fixture(scope="module")
def eight(correct_cifar: Scene) -> Scene:
    """ResNet-20 and eight images, of which the last is misclassified from the start."""
    net, x, y = correct_cifar
    y = y[:8].clone()
    y[7] = (y[7] + 1) % 10
    return net, x[:8], y


def lasts(trajectory: uv.Trajectory, name: str) -> np.ndarray:
    """The last row of each example."""
    column = trajectory.column(name)
    return column[np.arange(len(column)), np.isfinite(column).sum(axis=1) - 1]


def test_every_library_attack_is_watched_here() -> None:
    assert QUICK.keys() == ADVERSARIES.keys()


@pytest.mark.shared
@pytest.mark.parametrize("name", QUICK)
def test_from_the_clean_image_to_the_one_returned(
    name: str, eight: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x, y = eight
    before, state = state_of(net), []

    def keeping(*arguments: object) -> watching.Watched:
        state.append(watch_batch(*arguments))
        return state[-1]

    monkeypatch.setattr(watching, "watch_batch", keeping)
    found = watch(net, x, y, quick(name), measures=NAMES, ids=range(20, 28))
    assert_same(before, state_of(net))
    (batch,) = state
    queries = found.about["queries"]
    if name == "nes":  # it claims what the random start of its last step says
        assert queries["fooled"] >= 0
    else:
        assert queries["fooled"] == queries["fooled_seen"] == lasts(found, "adversarial").sum()
    assert len(found.table) == queries["matched"] >= 16
    assert queries["not_finite"] == 0
    assert found.examples.tolist() == list(range(20, 28))
    assert (found.column("distance_linf")[:, 0] == 0).all()
    for place, images in ((0, x), (-1, batch.images)):
        for measure, expected in measured_afresh(net, images, x, y, NAMES).items():
            values = found.column(measure)[:, 0] if place == 0 else lasts(found, measure)
            close(values, expected, measure, within=2e-5)  # the prepared copy is another order of summation
    if found.about["settings"]["eps"] is not None and name != "fab":
        norm = found.about["settings"]["norm"]
        assert np.nanmax(lasts(found, f"distance_{norm}")) <= found.about["settings"]["eps"] * (1 + 1e-4)
    assert found.accepted("margin").rows == found.rows


@pytest.mark.shared
@pytest.mark.parametrize("name", ["apgd-ce", "nes"])
def test_the_same_seed_gives_the_same_table_and_another_one_does_not(name: str, eight: Scene) -> None:
    net, x, y = eight[0], eight[1][:4], eight[2][:4]
    first, again, other = (watch(net, x, y, quick(name), measures=NAMES, seed=seed) for seed in (3, 3, 4))
    assert first.table.equals(again.table)
    assert not first.table.equals(other.table)


@pytest.mark.shared
def test_batches_keep_their_ids_and_their_rows_do_not_depend_on_those_after_them(eight: Scene) -> None:
    net, x, y = eight
    ids = [9, 4, 7, 1, 8]
    seen: list[int] = []
    whole = watch(
        net, x[:5], y[:5], quick("apgd-ce"), measures=NAMES, ids=ids, batch_size=2, progress=seen.append
    )
    assert seen == [2, 2, 1]
    assert whole.examples.tolist() == ids
    assert whole.column("label")[:, 0].tolist() == y[:5].tolist()
    alone = watch(net, x[2:4], y[2:4], quick("apgd-ce"), measures=NAMES, ids=ids[2:4], batch_size=2)
    np.testing.assert_array_equal(whole.column("margin")[2:4, : alone.rows], alone.column("margin"))
    assert whole.about["queries"]["matched"] == len(whole.table)


def test_counts_add_up() -> None:
    assert add_counts([{"a": 1, "fooled": -1}, {"a": 2, "fooled": 3}]) == {"a": 3, "fooled": -1}


# --- a mark that the attack cannot rub off ------------------------------------------------------------

CORNERS, SPACING = (slice(None), slice(None), slice(None, None, 31), slice(None, None, 31)), 0.03


class Blind(nn.Module):
    """A network that does not see the four corners of its images, so that no gradient moves them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        mask = torch.ones(1, 3, 32, 32)
        mask[CORNERS] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x * self.mask)


def marked(x: Tensor) -> Tensor:
    """The images with their own numbers in their corners, a tenth apart in L2."""
    x = x.clone()
    x[CORNERS] = 0.5 + SPACING * (torch.arange(8) - 3.5).view(8, 1, 1, 1)
    return x


class MarkReader:
    """Compares the examples that rows are given to with the numbers in their corners."""

    def __init__(self) -> None:
        self.right = self.wrong = 0

    def see_rows(self, ids: np.ndarray, steps: np.ndarray, probe: uv.Probe, values: object) -> None:
        marks = ((probe.x[CORNERS].flatten(1).quantile(0.5, dim=1) - 0.5) / SPACING + 3.5).round().numpy()
        self.right += int((marks == ids).sum())
        self.wrong += int((marks != ids).sum())


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "norm", "options"),
    [
        ("autoattack", "l2", {"eps": 0.15, "queries": 15, "targets": 1}),
        ("apgd-ce", "l2", {"eps": 0.5, "steps": 8, "restarts": 3}),
        ("fab", "l2", {"eps": 0.5, "steps": 4, "restarts": 2}),
        ("ddn", "l2", {"eps": None, "steps": 10}),
        ("fmn", "linf", {"eps": None, "steps": 10}),
    ],
)
def test_rows_of_near_copies_are_never_mixed_up(
    name: str, norm: str, options: dict, correct_cifar: Scene
) -> None:
    """Four images and a near copy of each, a fifth of a pixel-wide step away: their balls overlap almost wholly in L2."""
    net, x = Blind(correct_cifar[0]).eval(), correct_cifar[1]
    signs = directions(x[:4], "linf", torch.Generator().manual_seed(0))
    x = marked(torch.cat([x[:4], (x[:4] + 0.004 * signs).clamp(0, 1)]))
    model = uv.split(net, x)
    y = model.logits_of(x).argmax(dim=1)
    reader = MarkReader()
    found = watch_batch(model, x, y, range(8), by_name(name)(norm, **options), resolve(["loss"]), 0, reader)
    assert reader.wrong == 0
    assert reader.right == found.counts["matched"]
    if options["eps"] is not None:  # without a ball, what is further off than the next image is nobody's
        assert reader.right >= 0.9 * sum(found.counts[fate.name.lower()] for fate in matching.Fate)


# --- libraries that are given walk.model --------------------------------------------------------------


def test_foolbox_on_the_watched_model(small_net: nn.Module, small_images: tuple[Tensor, Tensor]) -> None:
    foolbox = library("foolbox")
    net, (x, y) = small_net, small_images
    before = state_of(net)
    attack = foolbox.attacks.LinfPGD(steps=4, rel_stepsize=0.25, random_start=True).repeat(2)
    with torch.random.fork_rng(), uv.observe(net, x, y, NAMES, eps=0.1) as walk:
        _, images, _ = attack(
            foolbox.PyTorchModel(walk.model, bounds=(0, 1), device="cpu"), x, y, epsilons=0.1
        )
        walk.ask(images)
    assert_same(before, state_of(net))
    assert walk.ambiguous == walk.unmatched == walk.not_finite == 0
    assert walk.trajectory.rows >= 2 * 4 + 1
    for measure, expected in measured_afresh(net, images, x, y, NAMES).items():
        close(walk.trajectory.column(measure)[:, -1], expected, measure)


def test_pyautoattack_on_the_watched_model(small_net: nn.Module, small_images: tuple[Tensor, Tensor]) -> None:
    """It overwrites logits, leaves random states behind, and asks only for the images that are not fooled yet."""
    net, x = small_net, small_images[0]
    y = net(x).argmax(dim=1)
    y[:3] = (y[:3] + 1) % 4  # misclassified from the start
    with uv.observe(net, x, y, NAMES, eps=0.3) as walk:
        found = by_name("square")(eps=0.3, queries=30).run(walk.model, x, y, 0)
        walk.ask(found.images)
    assert walk.fates == {
        "matched": len(walk.trajectory.table),
        "ambiguous": 0,
        "unmatched": 0,
        "not_finite": 0,
    }
    assert len(set(np.isfinite(walk.trajectory.column("margin")).sum(axis=1))) > 1
    np.testing.assert_array_equal(lasts(walk.trajectory, "adversarial") == 1, found.fooled.numpy())


class NumpyClassifier:
    """What ART does with a module: it wraps it, switches its mode around each call, and speaks NumPy."""

    def __init__(self, model: nn.Module) -> None:
        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self._model = model

            def forward(self, x: Tensor) -> list[Tensor]:
                return [self._model(x)]

        self.model = Wrapped()
        self.model.train(False)

    def predict(self, x: np.ndarray, batch_size: int = 5) -> np.ndarray:
        self.model.train(mode=False)
        with torch.no_grad():
            parts = [self.model(part)[-1].cpu().numpy() for part in torch.from_numpy(x).split(batch_size)]
        return np.concatenate(parts)

    def loss_gradient(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        self.model.train(mode=True)
        inputs = torch.from_numpy(x).requires_grad_()
        loss = nn.functional.cross_entropy(self.model(inputs)[-1], torch.from_numpy(y))
        self.model.zero_grad()
        loss.backward()
        assert inputs.grad is not None
        return inputs.grad.numpy()


@pytest.mark.parametrize("eps", [0.1, None])
def test_a_library_that_wraps_the_model_and_speaks_numpy(
    eps: float | None, small_net: nn.Module, small_images: tuple[Tensor, Tensor]
) -> None:
    net, (x, y) = small_net, small_images
    before = state_of(net)
    with uv.observe(net, x, y, NAMES, eps=eps) as walk:
        classifier = NumpyClassifier(walk.model)
        at = x.numpy().copy()
        np.testing.assert_array_equal(classifier.predict(at), net(x).detach().numpy())
        path = [at.copy()]
        for _ in range(4):
            path.append(at.copy())
            at += 0.02 * np.sign(classifier.loss_gradient(at, y.numpy()))
            np.clip(at, x.numpy() - 0.1, x.numpy() + 0.1, out=at)
        path.append(at.copy())
        classifier.predict(at)
    assert_same(before, state_of(net))
    assert walk.fates == {"matched": 72, "ambiguous": 0, "unmatched": 0, "not_finite": 0}
    for step, images in enumerate(path):
        for measure, expected in measured_afresh(net, torch.from_numpy(images), x, y, NAMES).items():
            close(walk.trajectory.column(measure)[:, step], expected, measure)


@pytest.mark.shared
def test_a_walk_watched_is_the_walk_alone(correct_cifar: Scene) -> None:
    """Bit for bit: being watched changes nothing of what the attack finds."""
    net, x, y = correct_cifar[0], correct_cifar[1][:4], correct_cifar[2][:4]
    alone = pgd(copy.deepcopy(net).requires_grad_(False), x, y, eps=8 / 255, steps=3)
    with uv.observe(net, x, y, ["loss"], eps=8 / 255) as walk:
        assert torch.equal(pgd(walk.model, x, y, eps=8 / 255, steps=3), alone)
    assert len(walk.trajectory.table) == 12


# --- errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda net, x, y: watch(net, x, y, quick("apgd-ce"), seed=-1), "seed must be a whole number of at least 0"),
        (lambda net, x, y: watch(net, x, y, quick("apgd-ce"), batch_size=0), "batch_size"),
        (lambda net, x, y: watch(net, x, y, quick("apgd-ce"), ids=[1]), "ids must name each of the 12"),
        (lambda net, x, y: watch(net, x, y, quick("apgd-ce"), measures=["los"]), "did you mean 'loss'"),
        (lambda net, x, y: watch(net, x, y + 4, quick("apgd-ce")), "classes 0 to 3"),
        (lambda net, x, y: watch(net.train(), x, y, quick("apgd-ce")), "training mode"),
    ],
)  # fmt: skip
def test_mistakes(
    call: Callable, says: str, small_net: nn.Module, small_images: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(InputError, match=says):
        call(small_net, *small_images)


def test_measures_of_the_users(small_net: nn.Module, small_images: tuple[Tensor, Tensor]) -> None:
    mine = Measure("brightness", "1", 0, lambda probe: probe.x.flatten(1).mean(dim=1))
    found = watch(small_net, *small_images, quick("apgd-ce"), measures=[mine, "input_gradient_norm"])
    expected = small_images[0].flatten(1).mean(dim=1).double().numpy()
    close(found.column("brightness")[:, 0], expected, "brightness")
    assert np.isfinite(found.column("input_gradient_norm")[:, 0]).all()
