"""The cosine head: what it computes, what is read of it while it learns, and its plain form."""

import copy

import pytest
import torch
from jaxtyping import config
from torch import nn

import training_oracles as plain
import uncannyvalley as uv
from uncannyvalley import InputError
from uncannyvalley.find_head import find_head
from uncannyvalley.train.live import LiveNetwork
from uncannyvalley.zoo.digits_network import demo_network
from uncannyvalley.zoo.heads import CosineHead, UnitFeatures, plain_heads, with_cosine_head


def cosine_net(scale: float = 6.0) -> nn.Module:
    net = with_cosine_head(plain.small(), "head", scale)
    with torch.no_grad():
        net.head.weight.mul_(torch.tensor([[0.1], [1.0], [5.0], [30.0]]))  # lengths must not matter
    return net


def test_logits_are_scaled_cosines() -> None:
    net, (x, _) = cosine_net(), plain.images()
    features = net.body(x)
    for row, class_ in ((0, 1), (3, 2), (5, 0)):
        cosine = torch.cosine_similarity(net.body(x)[row], net.head.weight[class_], dim=0)
        assert net(x)[row, class_].item() == pytest.approx(6.0 * cosine.item(), abs=1e-12)
    torch.testing.assert_close(net.head(7.5 * features), net.head(features))
    assert net(x).abs().max() <= 6.0 + 1e-12


def test_the_live_head_is_linear_on_unit_features() -> None:
    net, (x, _) = cosine_net(), plain.images()
    live = LiveNetwork(net, "head")
    seen, head = live(x), live.head
    torch.testing.assert_close(seen.features.norm(dim=1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(head.weight.norm(dim=1), torch.full((4,), 6.0, dtype=torch.float64))
    torch.testing.assert_close(head.logits(seen.features), seen.logits)
    torch.testing.assert_close(seen.logits, net(x))
    assert head.weight.requires_grad
    assert live.head is not head  # caches of an old step would hold old weights


def test_a_linear_head_is_read_as_it_is() -> None:
    net, (x, _) = plain.small(), plain.images()
    live = LiveNetwork(net, "head")
    seen = live(x)
    assert live.head.weight is net.head.weight
    assert live.head.bias is net.head.bias
    torch.testing.assert_close(live.head.logits(seen.features), seen.logits, rtol=0, atol=0)
    assert not net.head._forward_pre_hooks


def test_features_are_those_after_dropout() -> None:
    """What the head is given is what κ must be taken of."""
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 4)).double()
    live = LiveNetwork(net, "2")
    seen = live(plain.images()[0])
    torch.testing.assert_close(live.head.logits(seen.features), seen.logits)


def test_the_plain_form_is_the_same_function_and_splits() -> None:
    net, (x, _) = cosine_net().eval(), plain.images()
    before = copy.deepcopy(net.state_dict())
    twin = plain_heads(net)
    torch.testing.assert_close(twin(x), net(x), rtol=1e-12, atol=1e-12)
    assert not any(isinstance(one, CosineHead) for one in twin.modules())
    assert not any(weight.requires_grad for weight in twin.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert find_head(twin, x, None)[0] == "head.1"
    model = uv.split(twin, x)
    torch.testing.assert_close(model(x), net(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.head.weight, LiveNetwork(net, "head").head.weight)
    assert model.features(x).norm(dim=1).sub(1).abs().max() < 1e-10


@pytest.mark.parametrize("mode", [True, False])
def test_the_plain_form_keeps_the_mode(mode: bool) -> None:
    assert {one.training for one in plain_heads(cosine_net().train(mode)).modules()} == {mode}


def test_a_network_without_cosine_head_is_only_copied() -> None:
    net, (x, _) = plain.small().eval(), plain.images()
    twin = plain_heads(net)
    assert torch.equal(twin(x), net(x))
    assert twin is not net


def test_a_walk_records_the_sharpness_of_unit_features() -> None:
    """From training to the record: κ of the recorder is κ of the live head."""
    net = with_cosine_head(demo_network(4), "20").eval()
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    walk = uv.record(plain_heads(net), x, y, uv.attacks.pgd(eps=0.1, step_size=0.05), steps=1)
    live = LiveNetwork(net, "20")
    seen, head = live(x), live.head
    for row in range(4):
        expected = plain.sharpness(
            head.weight.double(), None, seen.features[row : row + 1].double(), y[row : row + 1]
        )
        assert walk.column("log_relative_sharpness")[row, 0] == pytest.approx(expected.log().item(), abs=1e-4)
    assert walk.column("feature_norm")[:, 0] == pytest.approx(1.0, abs=1e-6)


def test_features_that_are_all_zero_give_zero_logits_and_finite_slopes() -> None:
    head = CosineHead(3, 4)
    features = torch.zeros(2, 3, requires_grad=True)
    head(features).sum().backward()
    assert not head(features).any()
    assert features.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()
    assert not UnitFeatures()(features).any()


def test_a_head_that_is_the_whole_network() -> None:
    net = with_cosine_head(nn.Linear(3, 4), "")
    assert isinstance(net, CosineHead)
    features = torch.rand(5, 3)
    seen = LiveNetwork(net, "")(features)
    torch.testing.assert_close(seen.features, features / features.norm(dim=1, keepdim=True))
    torch.testing.assert_close(plain_heads(net)(features), net(features))


def test_the_new_head_is_as_the_old_one_was() -> None:
    net = plain.small().eval()
    head = with_cosine_head(net, "head").head
    assert head.weight.dtype == torch.float64
    assert not head.training
    assert head.weight.shape == (4, 5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), True, "10"])
def test_scales_that_cannot_be(scale: object) -> None:
    config.update("jaxtyping_disable", True)  # as users run it
    try:
        with pytest.raises(InputError, match="scale of a cosine head must be a finite number above 0"):
            with_cosine_head(plain.small(), "head", scale)
    finally:
        config.update("jaxtyping_disable", False)


def test_heads_that_are_not_there() -> None:
    with pytest.raises(InputError, match=r"unknown linear layer 'haed'; did you mean 'head'\?"):
        with_cosine_head(plain.small(), "haed")
    with pytest.raises(InputError, match=r"unknown linear or cosine head 'body\.0'"):
        LiveNetwork(plain.small(), "body.0")
