"""Attacks of other libraries: what they claim is what the network says, and they leave nothing behind."""

import inspect
import json
import logging
import random
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from uncannyvalley import InputError
from uncannyvalley.adversaries import Adversary, by_name

BOTH = ("linf", "l2")
NORMS = {
    "apgd-ce": BOTH, "apgd-dlr": BOTH, "fab": BOTH, "square": BOTH, "autoattack": BOTH, "nes": BOTH,
    "deepfool": BOTH, "fmn": BOTH, "hopskipjump": BOTH, "cw": ("l2",), "ddn": ("l2",), "boundary": ("l2",),
}  # fmt: skip
QUICK = {
    "apgd-ce": {"steps": 10}, "apgd-dlr": {"steps": 10}, "fab": {"steps": 10}, "square": {"queries": 60},
    "autoattack": {"queries": 60, "targets": 3}, "nes": {"queries": 200}, "cw": {"steps": 25, "binary_search_steps": 3, "initial_const": 1.0},
    "deepfool": {}, "ddn": {"steps": 40}, "fmn": {"steps": 40}, "boundary": {"queries": 100, "directions": 10},
    "hopskipjump": {"queries": 300, "directions": 10},
}  # fmt: skip
IN_BALL = ("apgd-ce", "apgd-dlr", "fab", "square", "autoattack", "nes")
DRAWING = ("apgd-ce", "apgd-dlr", "square", "nes", "boundary", "hopskipjump")
WHITE = ("apgd-ce", "apgd-dlr", "fab", "autoattack", "deepfool", "ddn", "fmn")
EPS = {"linf": 0.25, "l2": 1.5}

CASES = [(name, norm) for name, norms in NORMS.items() for norm in norms]
each_case = pytest.mark.parametrize(("name", "norm"), CASES, ids=[f"{name}-{norm}" for name, norm in CASES])
each_name = pytest.mark.parametrize("name", NORMS)


class Counted(nn.Module):
    """Keeps the rows of every query, and fails at the query ``fails_at``."""

    def __init__(self, net: nn.Module, fails_at: int | None = None) -> None:
        super().__init__()
        self.net, self.fails_at = net, fails_at
        self.queries: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.queries.append(x.detach().clone())
        if self.fails_at is not None and len(self.queries) > self.fails_at:
            raise RuntimeError("out of order")
        self.outputs.append(self.net(x))
        return self.outputs[-1]


class Constant(nn.Module):
    """The same class for every image, however it is changed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 2.0, 1.0, 0.0]))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.weight + 0 * x.flatten(1).sum(dim=1, keepdim=True)


def quick(name: str, norm: str, eps: float | None = None) -> Adversary:
    return by_name(name)(norm, eps=EPS[norm] if eps is None and name in IN_BALL else eps, **QUICK[name])


def distance(images: Tensor, x: Tensor, norm: str) -> Tensor:
    apart = (images.double() - x.double()).flatten(1)
    return apart.abs().amax(dim=1) if norm == "linf" else apart.norm(dim=1)


def wrong(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x).argmax(dim=1) != y


@pytest.fixture
def scene(small_net: nn.Module, small_images: tuple[Tensor, Tensor]) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of several classes and twelve images, of which the last three are misclassified."""
    with torch.no_grad():
        small_net[-1].weight *= 3
        small_net[-1].bias -= small_net(small_images[0]).mean(dim=0)
        y = small_net(small_images[0]).argmax(dim=1)
    y[9:] = (y[9:] + 1) % 4
    return small_net, small_images[0], y


@each_case
def test_the_claim_is_what_the_network_says(name: str, norm: str, scene) -> None:
    net, x, y = scene
    model = Counted(net)
    adversary = quick(name, norm)
    found = adversary.run(model, x, y, 0)
    assert (adversary.name, adversary.norm, found.images.shape) == (name, norm, x.shape)
    assert found.images.dtype == torch.float32
    assert not found.images.requires_grad
    assert found.fooled.dtype == torch.bool
    assert 0 <= found.images.min() <= found.images.max() <= 1
    assert torch.equal(found.fooled, wrong(net, found.images, y))
    if name != "nes":  # it starts at random and judges its last image alone
        assert found.fooled[9:].all()
        assert torch.allclose(model.queries[0], x, atol=1e-6)
    if name in WHITE:
        assert found.fooled.sum() >= 9
    if adversary.eps is not None:
        assert distance(found.images, x, norm).max() <= adversary.eps * (1 + 1e-5)


@pytest.mark.parametrize("name", [name for name in NORMS if name not in IN_BALL])
def test_within_eps_the_nearest_counts(name: str, scene) -> None:
    """With eps, the images that are clipped to the ball are judged."""
    net, x, y = scene
    far, near = quick(name, "l2"), quick(name, "l2", eps=0.05)
    anywhere, inside = far.run(net, x, y, 0), near.run(net, x, y, 0)
    assert distance(inside.images, x, "l2").max() <= 0.05 * (1 + 1e-5)
    assert torch.equal(inside.fooled, wrong(net, inside.images, y))
    assert inside.fooled.sum() < anywhere.fooled.sum()


@pytest.mark.parametrize(
    ("name", "norm", "settings", "most"),
    [
        ("deepfool", "l2", {}, 1.05), ("deepfool", "linf", {}, 1.05), ("ddn", "l2", {}, 1.1), ("fmn", "linf", {}, 1.1),
        ("cw", "l2", {"steps": 100}, 1.2), ("hopskipjump", "l2", {"queries": 2000}, 1.5), ("boundary", "l2", {"queries": 1000}, 4.0),
    ],
)  # fmt: skip
def test_the_nearest_in_a_linear_world(name: str, norm: str, settings: dict, most: float) -> None:
    """The boundary lies at gap / |difference of rows|, in the dual norm: nothing is nearer, and these come close."""
    generator = torch.Generator().manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(4, 36, generator=generator))
        x = 0.2 + 0.6 * torch.rand(4, 1, 6, 6, generator=generator)
        net[1].bias.copy_(-net[1].weight @ torch.full((36,), 0.5))
        logits = net(x)
        y = logits.argmax(dim=1)
        apart = (net[1].weight[y][:, None] - net[1].weight[None]).norm(p=1 if norm == "linf" else 2, dim=2)
        distances = (logits.gather(1, y[:, None]) - logits) / apart
        exact = distances.scatter(1, y[:, None], torch.inf).amin(dim=1)
    found = by_name(name)(norm, **settings).run(net, x, y, 0)
    reached = distance(found.images, x, norm)
    assert found.fooled.all()
    assert (reached > exact * (1 - 1e-4)).all()
    assert (reached < exact * most + 3e-3).all(), (reached / exact, exact)


@each_name
def test_a_seed_gives_one_path(name: str, scene) -> None:
    net, x, y = scene
    adversary = quick(name, NORMS[name][-1])
    runs = []
    for seed, noise in ((7, 0), (7, 1), (8, 2)):
        torch.manual_seed(noise)
        random.seed(noise)
        model = Counted(net)
        runs.append((model, adversary.run(model, x, y, seed)))
    (first, found), (second, again), (other, _) = runs
    assert len(first.queries) == len(second.queries)
    assert all(torch.equal(a, b) for a, b in zip(first.queries, second.queries, strict=True))
    assert torch.equal(found.images, again.images)
    if name in DRAWING:
        assert any(
            a.shape != b.shape or not torch.equal(a, b)
            for a, b in zip(first.queries, other.queries, strict=False)
        )


def surroundings(net: nn.Module) -> dict[str, object]:
    """All that a run could leave behind."""
    return {
        "weights": {key: value.clone() for key, value in net.state_dict().items()},
        "versions": [value._version for value in net.state_dict(keep_vars=True).values()],
        "grads": [parameter.grad for parameter in net.parameters()],
        "asks": [parameter.requires_grad for parameter in net.parameters()],
        "modes": [module.training for module in net.modules()],
        "hooks": [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in net.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),  # noqa: NPY002
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "tracing": sys.gettrace(),
        "warnings": list(warnings.filters),
        "logging": [
            (list(one.handlers), list(one.filters), one.level, one.disabled)
            for one in (logging.getLogger(), logging.getLogger("auto-attack"))
        ],
    }


def assert_untouched(before: dict, after: dict) -> None:
    for key in ("torch", "numpy"):
        assert np.array_equal(np.asarray(before.pop(key)), np.asarray(after.pop(key))), key
    weights, later = before.pop("weights"), after.pop("weights")
    assert all(torch.equal(weights[key], later[key]) for key in weights)
    assert before == after


@pytest.mark.parametrize("fails_at", [None, 4], ids=["success", "failure"])
@each_name
def test_nothing_stays_behind(name: str, fails_at: int | None, scene) -> None:
    net, x, y = scene
    net[0].weight.requires_grad_(False)
    net[-1].bias.grad = torch.ones(4)
    model = Counted(net, fails_at)
    adversary = quick(name, NORMS[name][0])
    images, labels = x.clone(), y.clone()
    with torch.no_grad():
        before = surroundings(net)
        if fails_at is None:
            adversary.run(model, x, y, 0)
        else:
            with pytest.raises(InputError, match=rf"{name} \(.*RuntimeError: out of order"):
                adversary.run(model, x, y, 0)
        assert_untouched(before, surroundings(net))
    assert torch.equal(net[-1].bias.grad, torch.ones(4))
    assert torch.equal(x, images)
    assert torch.equal(y, labels)


@each_name
def test_the_libraries_are_silent(name: str, scene, capfd, caplog) -> None:
    """Also where the user's root logger shows every line."""
    caplog.set_level(logging.DEBUG)
    quick(name, NORMS[name][0]).run(*scene, 0)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_logits_that_somebody_keeps_are_not_written(scene) -> None:
    """Square puts −inf on the true class of the logits it got."""
    net, x, y = scene
    model = Counted(net)
    quick("square", "linf").run(model, x, y, 0)
    assert all(torch.isfinite(one).all() for one in model.outputs)


def test_queries_are_as_documented(scene) -> None:
    _, x, y = scene
    expected = {
        "apgd-ce": ("linf", 10 + 11, 10 + 11),
        "fab": ("l2", 10 + 22, 10 + 22),
        "square": ("linf", 10 + 62, 10 + 62),
        "autoattack": ("linf", 119 + 305 * 3 + 60, 119 + 305 * 3 + 60),
        "ddn": ("l2", 41, 41),
        "fmn": ("linf", 41, 41),
        "nes": ("linf", 3 * 51 + 1, 3 * 51 + 1),
        "deepfool": ("linf", 4, 2 + 50 * 3),
        "cw": ("l2", 4, 3 * 25 + 1),
    }
    for name, (norm, least, most) in expected.items():
        model = Counted(Constant())
        found = quick(name, norm).run(model, x, torch.zeros_like(y), 0)
        assert least <= len(model.queries) <= most, name
        assert not found.fooled.any(), name


@pytest.mark.parametrize(
    ("name", "least", "most"), [("boundary", 100, 100 + 65), ("hopskipjump", 150, 300 + 65)]
)
def test_decision_attacks_keep_to_their_queries(name: str, least: int, most: int, scene) -> None:
    """65 = 1 clean, 10 draws, 51 blends, 1 check of the starts, 2 checks by the attack."""
    model = Counted(scene[0])
    quick(name, "l2").run(model, *scene[1:], 0)
    assert least < len(model.queries) <= most


def test_square_stops_asking_for_images_it_fooled(scene) -> None:
    net, x, y = scene
    model = Counted(net)
    found = by_name("square")("linf", eps=0.9, queries=200).run(model, x, y, 0)
    assert found.fooled.all()
    assert len(model.queries) < 150


def test_restarts_go_on_from_the_best(scene) -> None:
    net, x, y = scene
    model = Counted(net)
    once = by_name("nes")("linf", eps=0.1, steps=2, samples=10)
    thrice = by_name("nes")("linf", eps=0.1, steps=2, samples=10, restarts=3)
    first, best = once.run(net, x, y, 5), thrice.run(model, x, y, 5)
    assert len(model.queries) == 3 * (2 * 11 + 1)
    assert (best.fooled >= first.fooled).all()
    assert torch.equal(best.images[first.fooled], first.images[first.fooled])


def test_estimates_of_nes_do_not_mix_images(scene) -> None:
    """One long step along the estimate: the images nearly climb the loss as along the gradient."""
    net, x, y = scene
    steady = by_name("nes")("l2", eps=0.1, steps=1, samples=600, rel_stepsize=1.0, random_start=False)
    moved = (steady.run(net, x, y, 0).images - x).flatten(1)
    x.requires_grad_()
    gradient = torch.autograd.grad(nn.functional.cross_entropy(net(x), y, reduction="sum"), x)[0].flatten(1)
    assert nn.functional.cosine_similarity(moved, gradient).min() > 0.8


@each_name
def test_a_maker_says_what_it_makes(name: str) -> None:
    maker = by_name(name)
    first = inspect.getdoc(maker).split("\n")[0]
    adversary = quick(name, NORMS[name][0])
    made_by, version = adversary.library.split(" ")
    assert f"of {made_by}." in first
    assert version[0].isdigit()
    assert adversary.kind in ("white box", "score", "decision")
    assert json.loads(json.dumps(adversary.settings)) == adversary.settings
    assert {"norm", "eps"} <= adversary.settings.keys()
    hints = inspect.get_annotations(maker, eval_str=True)
    allowed = (str, int, float, bool, int | None, float | None)
    assert all(hints[key] in allowed for key in inspect.signature(maker).parameters)


def test_importing_the_room_imports_no_library() -> None:
    import subprocess

    code = "import sys, uncannyvalley.adversaries; print({'foolbox', 'pyautoattack', 'eagerpy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


@pytest.mark.shared
@pytest.mark.parametrize("name", ["apgd-ce", "fab", "deepfool", "ddn", "square", "hopskipjump", "autoattack"])
def test_on_a_real_network(name: str, correct_cifar: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = correct_cifar[0], correct_cifar[1][:6], correct_cifar[2][:6]
    norm = NORMS[name][0]
    eps = {"linf": 8 / 255, "l2": 0.5}[norm]
    settings = QUICK[name] | ({"targets": 9} if name == "autoattack" else {})
    found = by_name(name)(norm, eps=None if name == "hopskipjump" else eps, **settings).run(net, x, y, 0)
    assert torch.equal(found.fooled, wrong(net, found.images, y))
    assert found.fooled.sum() >= (3 if name == "square" else 6)
    if name != "hopskipjump":
        assert distance(found.images, x, norm).max() <= eps * (1 + 1e-5)
