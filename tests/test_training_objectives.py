"""One step of each objective equals a reference that is written out plainly, weights and batch statistics alike."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import training_oracles as plain
from uncannyvalley.attacks.streams import Streams
from uncannyvalley.train.live import LiveNetwork
from uncannyvalley.train.objectives import Objective, erm, flat, pgd_at, sam, take_gradients, trades

RATE = 0.1
BALLS = [
    {"norm": "linf", "eps": 0.05, "step_size": 0.02, "steps": 4},
    {"norm": "l2", "eps": 0.6, "step_size": 0.2, "steps": 4},
]


def draws() -> Streams:
    return Streams(3, range(6), restart=2, step=1)


def noise_in_ball(norm: str) -> Tensor:
    """The unit ball's point that an example's own stream names, made here a second time."""
    if norm == "linf":
        return 2 * draws().uniform(torch.Size([1, 6, 6])).double() - 1
    stream = draws()
    direction = stream.normal(torch.Size([1, 6, 6])).double()
    radius = stream.uniform(torch.Size([1])).double().view(-1, 1, 1, 1) ** (1 / 36)
    return radius * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def stepped(objective: Objective, net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """A copy of ``net`` after one step of plain gradient descent on the objective."""
    net = copy.deepcopy(net)
    live = LiveNetwork(net, "head")
    take_gradients(
        objective, lambda: objective.loss(live, x, y, draws()), lambda total: total.backward(), live
    )
    torch.optim.SGD(net.parameters(), lr=RATE).step()
    return net


def assert_same(found: nn.Module, expected: nn.Module, moved_from: nn.Module) -> None:
    moved = 0.0
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-9, atol=1e-11, msg=name)
        moved += (value - moved_from.state_dict()[name]).double().abs().sum().item()
    assert moved > 0.1  # there was a step at all


@pytest.mark.parametrize(
    ("name", "criterion"), [("cross-entropy", F.cross_entropy), ("squared", plain.squared_error)]
)
def test_plain_training(name: str, criterion: plain.Criterion) -> None:
    net, (x, y) = plain.small(), plain.images()
    expected = copy.deepcopy(net)
    plain.descend(expected, criterion(expected(x), y), RATE)
    assert_same(stepped(erm(name), net, x, y), expected, net)


@pytest.mark.parametrize("ball", BALLS, ids=["linf", "l2"])
@pytest.mark.parametrize(
    ("name", "criterion"), [("cross-entropy", F.cross_entropy), ("squared", plain.squared_error)]
)
def test_adversarial_training(name: str, criterion: plain.Criterion, ball: dict) -> None:
    net, (x, y) = plain.small(), plain.images()
    expected = copy.deepcopy(net)
    moved = plain.adversarial(expected, x, y, noise_in_ball(ball["norm"]), criterion, **ball)
    plain.descend(expected, criterion(expected(moved), y), RATE)
    assert_same(stepped(pgd_at(**ball, loss=name), net, x, y), expected, net)


@pytest.mark.parametrize("ball", BALLS, ids=["linf", "l2"])
def test_trades(ball: dict) -> None:
    net, (x, y) = plain.small(), plain.images()
    expected = copy.deepcopy(net)
    noise = draws().normal(torch.Size([1, 6, 6])).double()
    plain.descend(expected, plain.trades(expected, x, y, noise, 6.0, **ball), RATE)
    assert_same(stepped(trades(**ball), net, x, y), expected, net)


def test_sharpness_aware_minimisation() -> None:
    net, (x, y) = plain.small(), plain.images()
    expected = copy.deepcopy(net)
    plain.descend_sharpness_aware(expected, lambda: F.cross_entropy(expected(x), y), 0.2, RATE)
    found = stepped(sam(erm(), rho=0.2), net, x, y)
    assert_same(found, expected, net)
    unlike = stepped(erm(), net, x, y)
    assert (found.head.weight - unlike.head.weight).abs().max() > 1e-4  # the ascent matters here


@pytest.mark.parametrize("ball", BALLS, ids=["linf", "l2"])
def test_all_at_once(ball: dict) -> None:
    """Adversarial training with log-flatness under sharpness-aware minimisation."""
    net, (x, y) = plain.small(), plain.images()
    expected = copy.deepcopy(net)

    def loss() -> Tensor:
        moved = plain.adversarial(expected, x, y, noise_in_ball(ball["norm"]), F.cross_entropy, **ball)
        features = expected.body(moved)
        head = expected.head
        sharp = plain.mean_log_sharpness(head.weight, head.bias, features, y)
        return F.cross_entropy(head(features), y) + 0.3 * sharp

    def gradients_of_outer_only() -> Tensor:
        found = loss()
        expected.zero_grad()
        return found

    plain.descend_sharpness_aware(expected, gradients_of_outer_only, 0.1, RATE)
    for objective in (
        sam(flat(pgd_at(**ball), 0.3, log=True), 0.1),
        flat(sam(pgd_at(**ball), 0.1), 0.3, log=True),
    ):
        assert_same(stepped(objective, net, x, y), expected, net)


@pytest.mark.parametrize(
    "objective", [pgd_at(eps=0.1, steps=3), trades(eps=0.1, steps=3), pgd_at("l2", eps=0.5, steps=3)], ids=str
)
def test_attacks_leave_nothing_behind(objective: Objective) -> None:
    """No gradient on a weight, no batch statistics but those of the outer forwards, every mode as it was."""
    net, (x, y) = plain.small(), plain.images()
    net.body[1].eval()  # as a user freezes batch norm
    before = {name: value.clone() for name, value in net.state_dict().items()}
    loss = objective.loss(LiveNetwork(net, "head"), x, y, draws())
    assert all(weight.grad is None for weight in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert net.head.training
    assert not net.body[1].training
    assert loss.total.requires_grad
    assert not any(part.requires_grad for part in loss.parts.values())


@pytest.mark.parametrize("objective", [pgd_at(eps=0.1, steps=3), trades(eps=0.1, steps=3)], ids=str)
def test_batch_statistics_move_with_outer_forwards_only(objective: Objective) -> None:
    net, (x, y) = plain.small(), plain.images()
    objective.loss(LiveNetwork(net, "head"), x, y, draws())
    outer = {"pgd-at": 1, "trades": 2}[objective.name]
    assert net.body[1].num_batches_tracked == 1 + outer


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_adversarial_images_stay_in_ball_and_box(norm: str) -> None:
    net, (x, y) = plain.small(), plain.images()
    x[0], x[1] = 0.0, 1.0
    entered: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0].detach().clone()))
    pgd_at(norm, eps=0.3, step_size=0.2, steps=5).loss(LiveNetwork(net, "head"), x, y, draws())
    assert len(entered) == 6  # m + 1 forwards
    order = torch.inf if norm == "linf" else 2
    for one in entered:
        assert one.min() >= 0
        assert one.max() <= 1
        assert torch.linalg.vector_norm((one - x).flatten(1), order, dim=1).max() <= 0.3 + 1e-12
    assert (entered[0] - x).abs().max() > 0.01  # a random start


def test_a_confident_image_is_attacked_in_float32() -> None:
    """p_y rounds to 1 there: cross-entropy's own gradient is 0, and an attack on it would not move."""
    net, (x, y) = plain.small().float(), plain.images()
    with torch.no_grad():
        net.head.weight.mul_(1e4)
        y = net.eval()(x.float()).argmax(dim=1)
    net.train()
    entered: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0].detach().clone()))
    pgd_at(eps=1e-6, step_size=1e-7, steps=2).loss(LiveNetwork(net, "head"), x.float(), y, draws())
    assert ((entered[1] - entered[0]).flatten(1).abs().amax(dim=1) > 0).all()


def test_wrappers_see_the_clean_forward_of_trades_and_the_adversarial_of_pgd() -> None:
    net, (x, y) = plain.small(), plain.images()
    clean = copy.deepcopy(net)(x)
    seen = trades(eps=0.1, steps=2).loss(LiveNetwork(copy.deepcopy(net), "head"), x, y, draws()).seen
    torch.testing.assert_close(seen.logits, clean)
    seen = pgd_at(eps=0.1, steps=2).loss(LiveNetwork(copy.deepcopy(net), "head"), x, y, draws()).seen
    assert (seen.logits - clean).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("objective", "forwards", "backwards"),
    [(erm(), 1, 1), (pgd_at(eps=0.1, steps=5), 6, 6), (trades(eps=0.1, steps=5), 8, 7), (flat(erm(), 0.1), 1, 1),
     (sam(erm()), 2, 2), (sam(flat(pgd_at(eps=0.1, steps=5), 1.0)), 12, 12)],
    ids=lambda one: getattr(one, "name", None),
)  # fmt: skip
def test_passes_of_a_step_are_those_it_states(objective: Objective, forwards: int, backwards: int) -> None:
    """Backwards are counted where they reach the first weight or, in an attack, the images."""
    net, (x, y) = plain.small(), plain.images()
    passes = {"forwards": 0, "backwards": 0}

    def count(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        passes["forwards"] += 1
        if output.requires_grad:
            output.register_hook(lambda _: passes.update(backwards=passes["backwards"] + 1))

    net.body[0].register_forward_hook(count)
    live = LiveNetwork(net, "head")
    take_gradients(objective, lambda: objective.loss(live, x, y, draws()), lambda t: t.backward(), live)
    assert passes == {"forwards": forwards, "backwards": backwards}
    assert (objective.cost.forwards, objective.cost.backwards) == (forwards, backwards)


def test_weights_and_buffers_are_put_back_bit_for_bit_by_an_ascent() -> None:
    net, (x, y) = plain.small(), plain.images()
    live, once = LiveNetwork(net, "head"), copy.deepcopy(net)
    once(x)
    weights = [weight.detach().clone() for weight in net.parameters()]
    objective, calls = sam(erm(), rho=0.37), []

    def loss_that_fails_at(call: int):
        calls.append(call)
        if len(calls) == call:
            raise RuntimeError("out of memory")
        return objective.loss(live, x, y, draws())

    take_gradients(objective, lambda: loss_that_fails_at(0), lambda t: t.backward(), live)
    assert all(torch.equal(now, old) for now, old in zip(net.parameters(), weights, strict=True))
    assert all(torch.equal(now, old) for now, old in zip(net.buffers(), once.buffers(), strict=True))
    once(x)
    calls.clear()
    with pytest.raises(RuntimeError, match="out of memory"):
        take_gradients(objective, lambda: loss_that_fails_at(2), lambda t: t.backward(), live)
    assert all(torch.equal(now, old) for now, old in zip(net.parameters(), weights, strict=True))
    assert all(torch.equal(now, old) for now, old in zip(net.buffers(), once.buffers(), strict=True))


@pytest.mark.parametrize("factor", [0.0, float("nan"), float("inf")])
def test_without_a_way_up_the_first_gradient_is_left(factor: float) -> None:
    """A gradient of 0, or one that overflowed in half precision: the weights do not become NaN."""
    net, (x, y) = plain.small(), plain.images()
    live, objective, calls = LiveNetwork(net, "head"), sam(erm()), []

    def loss():
        calls.append(1)
        return objective.loss(live, x, y, draws())

    take_gradients(objective, loss, lambda total: (total * factor).backward(), live)
    assert len(calls) == 1
    assert all(weight.isfinite().all() for weight in net.parameters())
    assert net.head.weight.grad is not None


def test_frozen_weights_stay() -> None:
    net, (x, y) = plain.small(), plain.images()
    net.body.requires_grad_(False)
    found = stepped(sam(flat(pgd_at(eps=0.1, steps=2), 0.1)), net, x, y)
    for name, weight in found.named_parameters():
        assert torch.equal(weight, dict(net.named_parameters())[name]) == name.startswith("body")
