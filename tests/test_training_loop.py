"""The loop of training on one device: what it computes, selects, logs and leaves alone."""

import copy
import csv
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from uncannyvalley import attacks, data
from uncannyvalley.data.images import Images
from uncannyvalley.errors import InputError
from uncannyvalley.recording import record
from uncannyvalley.train import batches, loop
from uncannyvalley.train.checkpoint import CHECKPOINT_FILE
from uncannyvalley.train.evaluation import Accuracies
from uncannyvalley.train.fitting import fit
from uncannyvalley.train.history import LOG_FILE, read_log
from uncannyvalley.train.live import LiveNetwork
from uncannyvalley.train.objectives import Cost, Loss, Objective, erm, pgd_at
from uncannyvalley.train.plan import PLAN_FILE, read_plan
from uncannyvalley.train.recipe import Recipe
from uncannyvalley.types import Draws
from uncannyvalley.zoo.fitted import NETWORK_FILE, read_fitted
from uncannyvalley.zoo.heads import CosineHead, with_cosine_head


@pytest.fixture(scope="module")
def digits() -> Images:
    return data.digits("train").first(240)


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


@pytest.mark.parametrize("schedule", ["cosine", "constant", "piecewise", "one-cycle"])
def test_sgd_is_the_bare_loop_bit_for_bit(digits: Images, schedule: str) -> None:
    recipe = Recipe(
        epochs=2, batch_size=40, schedule=schedule, learning_rate=0.2, validation_share=0.0, seed=5
    )
    fitted = fit(linear(), digits, None, erm(), recipe)
    steps, rates = 12, []
    net = linear()
    optimizer = torch.optim.SGD(net.parameters(), 0.2, momentum=0.9, nesterov=True, weight_decay=5e-4)
    x, y = digits[:], digits.labels
    total = 0.0
    for step in range(steps):
        rate = {
            "cosine": 0.1 * (1 + math.cos(math.pi * step / steps)),
            "constant": 0.2,
            "piecewise": 0.2 * 0.1 ** ((step >= 6) + (step >= 9)),
            "one-cycle": _one_cycle(step, steps),
        }[schedule]
        rates.append(rate)
        optimizer.param_groups[0]["lr"] = rate
        epoch, batch = divmod(step, 6)
        generator = torch.Generator().manual_seed(batches.keyed(5, "order", epoch))
        rows = torch.randperm(240, generator=generator)[batch * 40 : (batch + 1) * 40]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        total += loss.item() if epoch else 0.0
    assert fitted.history[-1]["learning_rate"] == pytest.approx(rates[-1], rel=1e-9)
    assert fitted.history[-1]["total"] == pytest.approx(total / 6, rel=1e-6)
    for one, other in zip(net.parameters(), fitted.network.parameters(), strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=1e-5, atol=1e-6)


def _one_cycle(step: int, steps: int) -> float:
    """0.2/25 up to 0.2 in 30 % of the steps, then down to 0.2/25e4, both along half a cosine."""
    top = 0.3 * steps - 1
    low, high, end = 0.2 / 25, 0.2, 0.2 / 25 / 1e4
    if step <= top:
        return high + (low - high) / 2 * (1 + math.cos(math.pi * step / top))
    return end + (high - end) / 2 * (1 + math.cos(math.pi * (step - top) / (steps - 1 - top)))


def test_each_epoch_takes_each_image_at_most_once_in_an_order_of_its_own() -> None:
    images = Images(np.zeros((50, 1, 2, 2), np.uint8), torch.zeros(50, dtype=torch.long))
    source = batches.TrainingImages(images, torch.arange(50), torch.device("cpu"), torch.float32)
    first, second = (list(batches.shares(source.order(0, epoch), 8, 0, 1)) for epoch in (0, 1))
    assert [len(one) for one in first] == [8] * 6
    assert len(set(torch.cat(first).tolist())) == 48
    assert torch.cat(first).tolist() != torch.cat(second).tolist()
    halves = [list(batches.shares(source.order(0, 0), 8, rank, 2)) for rank in (0, 1)]
    for whole, one, other in zip(first, *halves, strict=True):
        assert sorted(whole.tolist()) == sorted([*one.tolist(), *other.tolist()])


def test_what_is_held_out_is_not_trained_on() -> None:
    rows, kept = batches.held_out(100, 0.1, seed=0)
    assert (len(rows), len(kept)) == (90, 10)
    assert sorted([*rows.tolist(), *kept.tolist()]) == list(range(100))
    assert batches.held_out(100, 0.1, seed=1)[1].tolist() != kept.tolist()


def test_bytes_and_floats_train_alike_and_the_given_network_is_left_alone(digits: Images) -> None:
    stored = Images((digits[:] * 255).round().to(torch.uint8).numpy(), digits.labels)
    net = linear().eval()
    before, generator = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    recipe = Recipe(epochs=1, batch_size=40)
    with torch.no_grad():
        of_bytes = fit(net, stored, None, erm(), recipe)
    of_floats = fit(net, stored[:], stored.labels, erm(), recipe)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not net.training
    assert all(one.grad is None and one.requires_grad for one in net.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    for one, other in zip(of_bytes.network.parameters(), of_floats.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert of_bytes.key != of_floats.key  # other data, as far as a file can tell


def test_digits_are_learned_and_the_folder_holds_what_was_selected(digits: Images, tmp_path: Path) -> None:
    recipe = Recipe(epochs=8, batch_size=24, learning_rate=0.1, eps=0.1, attack_steps=4)
    fitted = fit(linear(), digits, None, erm(), recipe, out=tmp_path / "run")
    assert fitted.path == tmp_path / "run"
    assert not any(module.training for module in fitted.network.modules())
    test = data.digits("test")
    accuracy = (fitted.network(test[:]).argmax(dim=1) == test.labels).double().mean()
    assert accuracy > 0.8
    saved = read_fitted(tmp_path / "run" / NETWORK_FILE)
    for name, value in fitted.network.state_dict().items():
        assert torch.equal(saved.weights[name], value)
    rows = read_log(tmp_path / "run" / LOG_FILE)
    assert rows == list(fitted.history)
    assert list(rows[0]) == [
        "epoch", "step", "learning_rate", "total", "loss", "clean_accuracy", "robust_accuracy", "selected",
    ]  # fmt: skip
    best = max(rows, key=lambda row: (row["robust_accuracy"], row["clean_accuracy"], -row["epoch"]))
    assert fitted.best == best
    _, kept = batches.held_out(240, 0.1, 0)
    attack = attacks.pgd("linf", eps=0.1, step_size=2.5 * 0.1 / 4)
    walk = record(fitted.network, digits[:][kept], digits.labels[kept], attack, steps=4)
    wrong = walk.column("adversarial") > 0
    assert best["clean_accuracy"] == pytest.approx(1 - wrong[:, 0].mean(), abs=1e-12)
    assert best["robust_accuracy"] == pytest.approx(1 - wrong.any(axis=1).mean(), abs=1e-12)


@pytest.mark.parametrize(("selection", "epoch"), [("robust", 3), ("clean", 2), ("last", 4)])
def test_selection(digits: Images, monkeypatch: pytest.MonkeyPatch, selection: str, epoch: int) -> None:
    looks = iter([(0.5, 0.25), (0.75, 0.25), (0.625, 0.5), (0.5, 0.5)])
    weights: list[Tensor] = []

    def look(net: nn.Module, images: Images, recipe: Recipe) -> Accuracies:
        weights.append(net[1].weight.clone())
        return Accuracies(*next(looks))

    monkeypatch.setattr(loop, "evaluate", look)
    fitted = fit(linear(), digits, None, erm(), Recipe(epochs=4, batch_size=60, eps=0.1, selection=selection))
    assert fitted.best["epoch"] == epoch
    assert torch.equal(fitted.network[1].weight, weights[epoch - 1])


def test_a_look_now_and_then_and_at_the_end(digits: Images) -> None:
    fitted = fit(linear(), digits, None, erm(), Recipe(epochs=5, batch_size=60, evaluate_every=2))
    looked = [row["epoch"] for row in fitted.history if row["clean_accuracy"] is not None]
    assert looked == [2, 4, 5]


def test_validation_images_of_your_own(digits: Images) -> None:
    validation = data.digits("test").first(30)
    fitted = fit(linear(), digits, None, erm(), Recipe(epochs=1, batch_size=240), validation=validation)
    assert fitted.history[0]["step"] == 1  # nothing was held out
    accuracy = (fitted.network(validation[:]).argmax(dim=1) == validation.labels).double().mean().item()
    assert fitted.best["clean_accuracy"] == accuracy


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_number_types(digits: Images, precision: str) -> None:
    recipe = Recipe(epochs=1, batch_size=60, eps=0.1, attack_steps=2)
    plain = fit(linear(), digits, None, pgd_at(eps=0.1, steps=2), recipe)
    other = fit(linear(), digits, None, pgd_at(eps=0.1, steps=2), recipe, precision=precision)
    assert other.network[1].weight.dtype == (torch.float64 if precision == "64-true" else torch.float32)
    assert other.history[0]["total"] != plain.history[0]["total"]
    assert other.history[0]["total"] == pytest.approx(plain.history[0]["total"], rel=2e-2)


def test_a_cosine_head_is_returned_in_its_plain_form(digits: Images, tmp_path: Path) -> None:
    net = with_cosine_head(linear(), "3")
    fitted = fit(net, digits, None, erm(), Recipe(epochs=2, batch_size=60), out=tmp_path)
    assert isinstance(net[3], CosineHead)
    assert not any(isinstance(module, CosineHead) for module in fitted.network.modules())
    assert read_plan(tmp_path / PLAN_FILE)["network"]["head"] == "3"


def test_the_loss_that_is_no_number_is_named_and_the_checkpoint_kept(digits: Images, tmp_path: Path) -> None:
    # a squared loss that is stepped on too far grows without bound
    recipe = Recipe(epochs=9, batch_size=60, learning_rate=30.0, checkpoint_steps=1, schedule="constant")
    with pytest.raises(
        InputError, match=r"training diverged at step \d+ of 27: total is (nan|inf).*checkpoint, from"
    ):
        fit(linear(), digits, None, erm("squared"), recipe, out=tmp_path)
    kept = (tmp_path / CHECKPOINT_FILE).read_bytes()
    with pytest.raises(InputError, match="diverged at step"):  # from there it comes to the same end
        fit(linear(), digits, None, erm("squared"), recipe, out=tmp_path)
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == kept


class _BrokenGradient(torch.autograd.Function):
    """The value as it is, a gradient that is no number."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * torch.nan


@dataclass
class BreaksAt:
    """Cross-entropy whose gradient breaks at one call, while its value is in order."""

    call: int
    calls: int = 0

    def __call__(self, network: LiveNetwork, x: Tensor, y: Tensor, draws: Draws) -> Loss:
        self.calls += 1
        seen = network(x)
        total = nn.functional.cross_entropy(seen.logits, y)
        if self.calls == self.call:
            total = _BrokenGradient.apply(total)
        return Loss(total, {"loss": total.detach()}, seen)


def test_broken_weights_are_not_kept_although_the_loss_was_in_order(digits: Images, tmp_path: Path) -> None:
    objective = Objective("breaks", {}, BreaksAt(3), Cost(1, 1))
    recipe = Recipe(epochs=9, batch_size=60, checkpoint_steps=1)
    with pytest.raises(InputError, match=r"weights of 1\.weight are not finite"):
        fit(linear(), digits, None, objective, recipe, out=tmp_path)
    sound = Objective("breaks", {}, BreaksAt(0), Cost(1, 1))
    assert fit(linear(), digits, None, sound, recipe, out=tmp_path).history[-1]["epoch"] == 9


def test_another_training_in_the_folder_is_refused_until_told(digits: Images, tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=60)
    fit(linear(), digits, None, erm(), recipe, out=tmp_path)
    log = (tmp_path / LOG_FILE).read_bytes()
    other = Recipe(epochs=1, batch_size=60, learning_rate=0.3)
    with pytest.raises(InputError, match=r"recipe.learning_rate \(0.1 there, 0.3 now\)"):
        fit(linear(), digits, None, erm(), other, out=tmp_path)
    with pytest.raises(InputError, match=r"objective.settings.loss|objective.name"):
        fit(linear(), digits, None, erm("squared"), recipe, out=tmp_path)
    with pytest.raises(InputError, match=r"network\.fingerprint"):
        fit(linear(1), digits, None, erm(), recipe, out=tmp_path)
    assert (tmp_path / LOG_FILE).read_bytes() == log
    assert fit(linear(), digits, None, erm(), other, out=tmp_path, overwrite=True).best["learning_rate"] < 0.3
    assert (tmp_path / LOG_FILE).read_bytes() != log


def test_when_checkpoints_are_made_is_no_part_of_a_training(digits: Images, tmp_path: Path) -> None:
    one = fit(linear(), digits, None, erm(), Recipe(epochs=1, batch_size=60), out=tmp_path)
    two = fit(
        linear(), digits, None, erm(), Recipe(epochs=1, batch_size=60, checkpoint_steps=1, checkpoint_every=None),
        out=tmp_path,
    )  # fmt: skip
    assert one.key == two.key


def test_the_engine_s_loggers(digits: Images, tmp_path: Path) -> None:
    fit(linear(), digits, None, erm(), Recipe(epochs=4, batch_size=60), out=tmp_path, loggers=["csv"])
    with (tmp_path / "loggers" / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6", "9", "10", "12"]
    assert rows[3]["train/loss"]
    assert rows[4]["epoch/clean_accuracy"]


def test_progress_tells_every_step(digits: Images) -> None:
    told: list[tuple[int, int]] = []
    fit(
        linear(), digits, None, erm(), Recipe(epochs=2, batch_size=60),
        progress=lambda done, steps, losses: told.append((done, steps)),
    )  # fmt: skip
    assert told == list(zip(range(1, 7), itertools.repeat(6), strict=False))
