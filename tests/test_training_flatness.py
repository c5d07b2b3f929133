"""The regulariser's gradient is autograd's through the materialised Hessian: in head and body, deep in the valley too."""

import math

import pytest
import torch
from torch import Tensor, nn

import training_oracles as plain
from uncannyvalley import head as head_module
from uncannyvalley import measures
from uncannyvalley.attacks.streams import Streams
from uncannyvalley.head import Head
from uncannyvalley.train.live import LiveNetwork, Seen
from uncannyvalley.train.objectives import erm, flat, pgd_at, trades
from uncannyvalley.train.objectives.flatness import mean_sharpness
from uncannyvalley.types import Probe
from uncannyvalley.zoo.heads import CosineHead, with_cosine_head


def draws() -> Streams:
    return Streams(0, range(6), restart=0, step=0)


def gradients(loss: Tensor, net: nn.Module) -> dict[str, Tensor]:
    named = dict(net.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(named[name]) if one is None else one
        for name, one in zip(named, found, strict=True)
    }


def parts_of(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """W, b and features by definition; for a cosine head written out."""
    features = net.body(x)
    if isinstance(net.head, CosineHead):
        rows = net.head.weight
        weight = net.head.scale * rows / rows.norm(dim=1, keepdim=True)
        return weight, None, features / features.norm(dim=1, keepdim=True)
    return net.head.weight, net.head.bias, features


@pytest.mark.parametrize("head", ["linear", "cosine"])
@pytest.mark.parametrize("log", [False, True], ids=["kappa", "log kappa"])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_gradient_is_that_through_the_hessian(head: str, log: bool, mode: str) -> None:
    net, (x, y) = plain.small(), plain.images()
    if head == "cosine":
        net = with_cosine_head(net, "head", scale=4.0)
    net.train(mode == "training")
    base = gradients(erm().loss(LiveNetwork(net, "head"), x, y, draws()).total, net)
    regularised = flat(erm(), 0.7, log=log).loss(LiveNetwork(net, "head"), x, y, draws())
    found = gradients(regularised.total, net)
    weight, bias, features = parts_of(net, x)
    oracle = plain.mean_log_sharpness if log else plain.sharpness
    expected_value = oracle(weight, bias, features, y)
    expected = gradients(expected_value, net)
    torch.testing.assert_close(
        regularised.parts["log_sharpness" if log else "sharpness"], expected_value.detach(), rtol=1e-9, atol=0
    )
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name] - base[name], 0.7 * gradient, rtol=1e-7, atol=1e-11, msg=name)
    for name in ("body.0.weight", "body.4.weight", "head.weight"):
        assert expected[name].abs().max() > 1e-4, name


def test_mean_sharpness_is_that_of_the_mean_loss() -> None:
    """The oracle above takes the Hessian of the batch's mean loss; here each example is taken alone."""
    net, (x, y) = plain.small(), plain.images()
    weight, bias, features = parts_of(net, x)
    each = [plain.sharpness(weight, bias, features[i : i + 1], y[i : i + 1]) for i in range(len(y))]
    together = plain.sharpness(weight, bias, features, y)
    torch.testing.assert_close(torch.stack(each).mean(), together, rtol=1e-10, atol=0)


def test_a_detached_hessian_teaches_the_body_nothing() -> None:
    """What the published regulariser does: its gradient in the body is 0, and in the head it is another."""
    net, (x, y) = plain.small(), plain.images()
    weight, bias, features = parts_of(net, x)
    detached = gradients(plain.detached_sharpness(weight, bias, features, y), net)
    ours = gradients(mean_sharpness(Seen(features, net.head(features)), Head(weight, bias), y, log=False, squared=False), net)  # fmt: skip
    for name in ("body.0.weight", "body.4.weight"):
        assert not detached[name].any(), name
        assert ours[name].abs().max() > 1e-3, name
    assert (detached["head.weight"] - ours["head.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("log", [False, True], ids=["kappa", "log kappa"])
def test_gradient_in_the_body_is_the_difference_quotient(log: bool) -> None:
    net, (x, y) = plain.small(), plain.images()
    net.eval()
    live, weight = LiveNetwork(net, "head"), net.body[0].weight

    def value() -> Tensor:
        return mean_sharpness(live(x), live.head, y, log=log, squared=False)

    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slope = (gradients(value(), net)["body.0.weight"] * direction).sum().item()
    with torch.no_grad():
        weight += 1e-6 * direction
        above = value()
        weight -= 2e-6 * direction
        below = value()
    assert slope == pytest.approx((above - below).item() / 2e-6, rel=1e-5)


@pytest.mark.parametrize("gap", [20.0, 100.0, 600.0])
def test_the_valley_in_float32(gap: float) -> None:
    """There p rounds to 1; log κ is log Σ exp(z_s − z_t) |w_s − w_t|² + 2 log|φ| up to a relative e^{−gap}."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(5, 3, generator=generator).requires_grad_()
    features = torch.randn(4, 3, generator=generator).abs()
    top = (features @ weight.detach().T).argmax(dim=1)
    with torch.no_grad():
        two = (features @ weight.T).topk(2, dim=1).values
        features *= (gap / (two[:, 0] - two[:, 1]))[:, None]
    features.requires_grad_()

    logits = nn.functional.linear(features, weight)
    found = mean_sharpness(Seen(features, logits), Head(weight, None), top, log=True, squared=False)
    ours = torch.autograd.grad(found, (weight, features))

    rows, points = (one.detach().double().requires_grad_() for one in (weight, features))
    exact = points @ rows.T
    apart = (rows[:, None] - rows).square().sum(dim=2)[top]
    others = torch.ones_like(exact, dtype=torch.bool).scatter(1, top[:, None], False)
    terms = (exact - exact.gather(1, top[:, None]))[others] + apart[others].log()
    truth = (terms.view(4, 4).logsumexp(dim=1) + 2 * points.norm(dim=1).log()).mean()
    expected = torch.autograd.grad(truth, (rows, points))

    tolerance = 3e-6 * gap + 1e-8  # of float32 logits, which differ by that from those in float64
    assert found.item() == pytest.approx(truth.item(), abs=tolerance)
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= max(tolerance, 1e-5) * other.norm()


@pytest.mark.parametrize("log", [False, True], ids=["kappa", "log kappa"])
@pytest.mark.parametrize("squared", [False, True], ids=["cross-entropy", "squared"])
def test_rows_without_sharpness_add_nothing(log: bool, squared: bool) -> None:
    """All features 0, as of a dead layer: κ is 0 and flat there."""
    net, (x, y) = plain.small(), plain.images()
    features = net.body(x).detach()
    features[2] = 0.0
    some = torch.tensor([0, 1, 3, 4, 5])
    features.requires_grad_()

    def value(which: Tensor) -> Tensor:
        chosen = Seen(features[which], net.head(features[which]))
        head = Head(net.head.weight, net.head.bias)
        return mean_sharpness(chosen, head, y[which], log=log, squared=squared)

    found, without = value(torch.arange(6)), value(some)
    assert found.item() == pytest.approx(without.item() * 5 / 6, rel=1e-12)
    ours, theirs = (torch.autograd.grad(one, (net.head.weight, features)) for one in (found, without))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other * 5 / 6)
        assert one.abs().max() > 0
    assert not ours[1][2].any()


@pytest.mark.parametrize("log", [False, True], ids=["kappa", "log kappa"])
def test_a_head_whose_rows_are_all_equal(log: bool) -> None:
    """As a head that starts at 0: no sharpness anywhere, and a step that stays finite."""
    net, (x, y) = plain.small(), plain.images()
    nn.init.zeros_(net.head.weight)
    loss = flat(erm(), 1.0, log=log).loss(LiveNetwork(net, "head"), x, y, draws())
    base = erm().loss(LiveNetwork(net, "head"), x, y, draws())
    for name, gradient in gradients(loss.total, net).items():
        torch.testing.assert_close(gradient, gradients_of(base.total, net, name))


def gradients_of(loss: Tensor, net: nn.Module, name: str) -> Tensor:
    return torch.autograd.grad(loss, dict(net.named_parameters())[name], retain_graph=True)[0]


@pytest.mark.parametrize("log", [False, True], ids=["kappa", "log kappa"])
def test_two_equal_rows(log: bool) -> None:
    net, (x, y) = plain.small(), plain.images()
    with torch.no_grad():
        net.head.weight[1] = net.head.weight[0]
    weight, bias, features = parts_of(net, x)
    expected = gradients(
        (plain.mean_log_sharpness if log else plain.sharpness)(weight, bias, features, y), net
    )
    live = LiveNetwork(net, "head")
    found = gradients(mean_sharpness(live(x), live.head, y, log=log, squared=False), net)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-10, msg=name)


def test_heads_without_a_table_of_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form that vocabularies take, on a head for which the other is known."""
    net, (x, y) = plain.small(), plain.images()
    live = LiveNetwork(net, "head")
    expected = gradients(mean_sharpness(live(x), live.head, y, log=True, squared=False), net)
    monkeypatch.setattr(head_module, "PAIRWISE_CLASSES", 1)
    found = gradients(mean_sharpness(live(x), live.head, y, log=True, squared=False), net)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-10, msg=name)


def test_half_precision_forwards_do_not_round_the_sums() -> None:
    """Under autocast features and logits are bfloat16; sharpness of them is that of the same numbers in float64."""
    net, (x, y) = plain.small().float(), plain.images()
    live = LiveNetwork(net, "head")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = live(x.float())
        found = mean_sharpness(seen, live.head, y, log=True, squared=False)
    assert seen.logits.dtype == torch.bfloat16
    exact = Head(net.head.weight.double(), net.head.bias.double())
    expected = mean_sharpness(
        Seen(seen.features.double(), seen.logits.double()), exact, y, log=True, squared=False
    )
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    found.backward()
    assert net.body[0].weight.grad.isfinite().all()


def test_it_reads_the_forward_of_its_base() -> None:
    """No forward of its own: κ is that of adversarial images in adversarial training."""
    net, (x, y) = plain.small(), plain.images()
    for base in (erm(), pgd_at(eps=0.1, steps=2), trades(eps=0.1, steps=2)):
        loss = flat(base, 2.0).loss(LiveNetwork(net, "head"), x, y, draws())
        head = Head(net.head.weight, net.head.bias)
        expected = mean_sharpness(loss.seen, head, y, log=False, squared=False)
        torch.testing.assert_close(loss.parts["sharpness"], expected.detach())
        torch.testing.assert_close(loss.total, loss.parts["loss"] + 2.0 * expected)


# --- squared loss ------------------------------------------------------------------------------------


def probe_of(net: plain.Small, x: Tensor, y: Tensor) -> Probe:
    features = net.body(x)
    head = Head(net.head.weight, net.head.bias)
    return Probe(x, x, y, None, torch.arange(len(x)), features, net.head(features), head)


def test_sharpness_of_squared_loss_is_that_of_its_hessian() -> None:
    net, (x, y) = plain.small(), plain.images()
    probe = probe_of(net, x, y)
    found = measures.available()["log_squared_loss_sharpness"](probe)
    for row in range(len(x)):
        expected = plain.sharpness(
            net.head.weight,
            net.head.bias,
            probe.features[row : row + 1],
            y[row : row + 1],
            plain.squared_error,
        )
        assert found[row].item() == pytest.approx(math.log(expected.item()), abs=1e-10)
    assert "log_squared_loss_sharpness" not in [one.name for one in measures.resolve(None)]


@pytest.mark.parametrize("log", [False, True], ids=["kappa", "log kappa"])
def test_flatness_of_squared_loss(log: bool) -> None:
    net, (x, y) = plain.small(), plain.images()
    loss = flat(erm("squared"), 0.3, log=log).loss(LiveNetwork(net, "head"), x, y, draws())
    weight, bias, features = parts_of(net, x)
    each = torch.stack(
        [
            plain.sharpness(weight, bias, features[i : i + 1], y[i : i + 1], plain.squared_error)
            for i in range(len(y))
        ]
    )
    expected = plain.squared_error(net.head(features), y) + 0.3 * (each.log() if log else each).mean()
    torch.testing.assert_close(loss.total, expected)
    found, wanted = gradients(loss.total, net), gradients(expected, net)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-11, msg=name)
