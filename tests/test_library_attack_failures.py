"""Where an attack cannot be made or run, or its library fails: a clear error, or the image comes back as it was."""

import sys
from collections.abc import Callable

import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn

import test_library_attacks
from test_library_attacks import NORMS, QUICK, Constant, Counted, distance, quick, wrong
from uncannyvalley import InputError
from uncannyvalley.adversaries import Adversary, by_name
from uncannyvalley.adversaries.containment import library

scene = test_library_attacks.scene


class Shattered(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits / 0


@pytest.mark.parametrize("name", ["boundary", "hopskipjump"])
def test_images_without_a_start_come_back(name: str, scene) -> None:
    _, x, y = scene
    labels = torch.zeros_like(y)
    labels[2] = 1
    found = quick(name, "l2").run(Constant(), x, labels, 0)
    assert torch.equal(found.images, x)
    assert found.fooled.tolist() == [place == 2 for place in range(12)]


@pytest.mark.parametrize("name", ["boundary", "hopskipjump"])
def test_another_image_is_a_start_where_noise_is_none(name: str) -> None:
    """Only images brighter than 0.8 on average are of class 1: no noise ever is."""
    x = torch.stack([torch.full((1, 6, 6), 0.3), torch.full((1, 6, 6), 0.95), torch.full((1, 6, 6), 0.5)])
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.zeros(36), torch.full((36,), 1 / 36)]))
        net[1].bias.copy_(torch.tensor([0.8, 0.0]))
    helped = by_name(name)("l2", **QUICK[name], other_images=True)
    found = helped.run(net, x, torch.tensor([0, 1, 0]), 0)
    assert found.fooled.all()
    assert distance(found.images, x, "l2")[0] < 6 * 0.65
    alone = quick(name, "l2").run(net, x, torch.tensor([0, 1, 0]), 0)
    assert alone.fooled.tolist() == [False, True, False]


def test_where_the_batch_fails_each_image_is_tried_alone(monkeypatch: pytest.MonkeyPatch, scene) -> None:
    """foolbox refuses a whole batch for one start; here all batches, and of the images alone the first."""
    foolbox = library("foolbox")
    net, x, y = scene
    search = foolbox.attacks.HopSkipJumpAttack._binary_search

    def refusing(self, is_adversarial, originals, perturbed):
        found = search(self, is_adversarial, originals, perturbed)
        return originals if len(originals) > 1 or torch.equal(originals.raw, x[:1]) else found

    monkeypatch.setattr(foolbox.attacks.HopSkipJumpAttack, "_binary_search", refusing)
    found = quick("hopskipjump", "linf").run(net, x, y, 0)
    assert found.fooled.tolist() == [False] + [True] * 11
    assert torch.equal(found.images[0], x[0])
    assert torch.equal(found.fooled, wrong(net, found.images, y))


class Refusing(Counted):
    def forward(self, x: Tensor) -> Tensor:
        if len(self.queries) > 100:
            raise ValueError("no more than a hundred")
        return super().forward(x)


def test_an_error_of_the_network_is_not_taken_for_one_of_the_library(scene) -> None:
    with pytest.raises(InputError, match="ValueError: no more than a hundred"):
        quick("hopskipjump", "l2").run(Refusing(scene[0]), *scene[1:], 0)


def test_an_image_that_comes_back_broken_is_not_fooled(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, y = scene
    foolbox = library("foolbox")
    whole = foolbox.attacks.DDNAttack.run

    def run(self, *args, **options):
        images = whole(self, *args, **options)
        broken = images.raw.clone()
        broken[0] = float("nan")
        return type(images)(broken)

    monkeypatch.setattr(foolbox.attacks.DDNAttack, "run", run)
    found = quick("ddn", "l2").run(net, x, y, 0)
    assert torch.equal(found.images[0], x[0])
    assert found.fooled.tolist() == [False] + [True] * 11


@pytest.fixture
def _as_users_run_it():
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


MISTAKES: list[tuple[Callable[[], Adversary], str]] = [
    (lambda: by_name("sqare"), "unknown library attack 'sqare'; did you mean 'square'"),
    (lambda: by_name("cw")("linf"), "cw has the norm l2, got 'linf'"),
    (lambda: by_name("boundary")("linf"), "boundary has the norm l2"),
    (lambda: by_name("deepfool")("l1"), "deepfool has the norm linf and l2, got 'l1'"),
    (lambda: by_name("fab")(eps=None), "eps of fab must be a finite number above 0"),
    (lambda: by_name("square")(eps=0.0), "eps of square must be .* got 0.0"),
    (lambda: by_name("ddn")(eps=-1), "or None: any adversarial counts; got -1"),
    (lambda: by_name("apgd-ce")(eps=0.1, steps=0), "steps must be a whole number of at least 1"),
    (lambda: by_name("apgd-ce")(eps=0.1, restarts=0), "restarts must be"),
    (lambda: by_name("square")(eps=0.1, queries=0), "queries must be"),
    (lambda: by_name("nes")(eps=0.1, queries=51), "queries=51 is too few for nes: one step takes 52"),
    (lambda: by_name("nes")(eps=0.1, sigma=0.0), "sigma must be a finite number above 0"),
    (lambda: by_name("deepfool")(candidates=1), "candidates must be a whole number of at least 2"),
    (lambda: by_name("hopskipjump")(directions=0), "directions must be"),
]  # fmt: skip


@pytest.mark.usefixtures("_as_users_run_it")
@pytest.mark.parametrize(("make", "says"), MISTAKES, ids=[says[:24] for _, says in MISTAKES])
def test_settings_that_make_no_attack(make: Callable[[], Adversary], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


def two_classes() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).eval()


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("apgd-dlr", lambda net, x, y: (two_classes(), x, y * 0), "needs at least 3 classes, the network has 2"),
        ("autoattack", lambda net, x, y: (two_classes(), x, y * 0), "needs at least 4 classes, the network has 2"),
        ("fmn", lambda net, x, y: (net.train(), x, y), r"training mode .* call model\.eval"),
        ("fmn", lambda net, x, y: (net, x, y + 1), "y must hold classes 0 to 3"),
        ("square", lambda net, x, y: (net, x, y + 1), "y must hold classes 0 to 3"),
        ("fmn", lambda net, x, y: (net, x + 1, y), r"must lie in \[0, 1\]"),
        ("fmn", lambda net, x, y: (net, x, y[:3]), "one class for each of the 12 images"),
        ("fmn", lambda net, x, y: (net[:3].eval(), x, y), r"logits \(n, classes\), got shape \(12, 6, 6, 6\)"),
        ("ddn", lambda net, x, y: (nn.Sequential(net, Shattered()).eval(), x, y), "logits hold NaN"),
        ("square", lambda net, x, y: (two_classes(), x.flatten(1), y * 0), "needs images .* got shape"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("_as_users_run_it")
def test_what_cannot_be_attacked(name: str, change, says: str, scene) -> None:
    net, x, y = scene
    with pytest.raises(InputError, match=says):
        quick(name, NORMS[name][0]).run(*change(net, x, y), 0)


def test_classes_are_counted_without_a_query_of_ours(scene) -> None:
    model = Counted(two_classes())
    with pytest.raises(InputError, match="at least 10 classes"):
        by_name("autoattack")(eps=0.1).run(model, scene[1], scene[2] * 0, 0)
    assert len(model.queries) == 1


@pytest.mark.parametrize(("missing", "name"), [("foolbox", "ddn"), ("pyautoattack", "fab")])
def test_a_missing_library(missing: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r'pip install "uncannyvalley\[attacks\]"'):
        quick(name, "l2")
