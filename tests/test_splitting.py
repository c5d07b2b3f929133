"""The split is the network, or an error that says what stands in the way."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import uncannyvalley as uv
from uncannyvalley import InputError


def layers(*behind: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4), *behind).eval()


class Wrapped(nn.Module):
    """``forward`` given as a function of the module and the images, with two linear layers at hand."""

    def __init__(self, forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.fc, self.other = nn.Linear(36, 8), nn.Linear(8, 4), nn.Linear(8, 4)
        self.function = forward
        self.eval()

    def forward(self, x: Tensor):
        return self.function(self, F.relu(self.body(x.flatten(1))))


@pytest.fixture
def x() -> Tensor:
    return torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def test_features_and_head_are_the_network(small_net: nn.Module, x: Tensor) -> None:
    model = uv.split(small_net, x)
    with torch.no_grad():
        torch.testing.assert_close(model(model.place(x)), small_net(x), rtol=1e-5, atol=1e-6)
        assert model.features(model.place(x)).shape == (5, 32)
    assert model.head_name == "7"
    assert model.prepared
    assert any("folded 2 batch norms" in note for note in model.notes)


def test_named_head_and_logits_objects(x: Tensor) -> None:
    assert uv.split(layers(), x, head="3").head_name == "3"
    returns_object = Wrapped(lambda net, features: SimpleNamespace(logits=net.fc(features)))
    assert uv.split(returns_object, x).head_name == "fc"


def test_head_without_bias_and_a_network_that_is_a_head(x: Tensor) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3, bias=False)).eval()
    assert uv.split(net, x).head.bias is None
    assert uv.split(nn.Linear(36, 3).eval(), x.flatten(1)).head_name == ""


def test_double_copy_of_a_float_network(small_net: nn.Module, x: Tensor) -> None:
    model = uv.split(small_net, x, dtype=torch.float64)
    expected = copy.deepcopy(small_net).double()(x.double())
    torch.testing.assert_close(model(model.place(x)), expected, rtol=1e-6, atol=1e-7)


def test_a_layer_used_twice_is_not_folded_wrongly(x: Tensor) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Linear(36, 3)

        def forward(self, x: Tensor) -> Tensor:
            once = self.norm(self.conv(x))
            return self.fc(self.conv(once).flatten(1))

    net = Shared()
    net.norm.running_mean += 0.3
    model = uv.split(net.eval(), x)
    torch.testing.assert_close(model(model.place(x)), net(x))
    assert not any("folded" in note for note in model.notes)


def test_a_wrong_folding_is_left_out_and_said(x: Tensor) -> None:
    class Skips(nn.Module):
        """The convolution's output is also used past the batch norm, which no module sees."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Linear(36, 3)

        def forward(self, x: Tensor) -> Tensor:
            before = self.conv(x)
            return self.fc((self.norm(before) + before).flatten(1))

    net = Skips()
    net.norm.running_var *= 3
    model = uv.split(net.eval(), x)
    torch.testing.assert_close(model(model.place(x)), net(x))
    assert any(note.startswith("left out: folded 1 batch norm") for note in model.notes)


def test_compiling_is_kept_where_it_is_equal_and_said_either_way(small_net: nn.Module, x: Tensor) -> None:
    """Without a C++ compiler the step is left out with its reason; the numbers are the network's in both cases."""
    model = uv.split(small_net, x, compile=True)
    assert [note for note in model.notes if "torch.compile" in note]
    with torch.no_grad():
        torch.testing.assert_close(model(model.place(x)), small_net(x), rtol=1e-5, atol=1e-6)


def test_a_relu_that_would_overwrite_what_is_used_again_is_left_alone(x: Tensor) -> None:
    """The first layer's ReLU would write over the images, the second's over a tensor that is used again."""

    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.first, self.fc = nn.ReLU(), nn.Linear(36, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            before = self.first(self.relu(x.flatten(1)))
            return self.fc(self.relu(before) + before)

    net = Uses().eval()
    given = x.clone()
    model = uv.split(net, x)
    torch.testing.assert_close(model(model.place(x)), net(x))
    assert torch.equal(x, given)
    assert any(note.startswith("left out: 1 ReLUs in place") for note in model.notes)


@pytest.mark.parametrize(
    ("behind", "says"),
    [
        (nn.Softmax(dim=1), "probabilities"),
        (nn.LogSoftmax(dim=1), "log-probabilities"),
        (nn.Unflatten(1, (4,)), "squeezed, reshaped or copied"),
        (nn.Sigmoid(), "more operations follow"),
    ],
)
def test_anything_behind_the_head_is_an_error(behind: nn.Module, says: str, x: Tensor) -> None:
    with pytest.raises(InputError, match=says) as error:
        uv.split(layers(behind), x)
    assert "'3'" in str(error.value)


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda net, f: net.fc(f) / 0.5, "more operations follow"),
        (lambda net, f: (net.fc(f) + net.other(f)) / 2, "averaging of several heads"),
        (lambda net, f: net.fc(f) + 0 * net.fc(2 * f), "called 2 times"),
        (lambda net, f: net.fc(f)[:, 0], "more operations follow"),
        (lambda net, f: (net.fc(f), f), "must return a tensor of logits"),
        (lambda net, f: net.fc(f * torch.rand(())), "random"),
        (lambda net, f: net.fc(f - f.mean(dim=0)), "influence each other"),
        (lambda net, f: net.fc(f * torch.nan), "NaN"),
    ],
)
def test_heads_that_cannot_be_measured(forward, says: str, x: Tensor) -> None:
    with pytest.raises(InputError, match=says):
        uv.split(Wrapped(forward), x)


@pytest.mark.parametrize("rows", [1, 5])
def test_squeezed_output_is_an_error(rows: int, x: Tensor) -> None:
    with pytest.raises(InputError, match=r"'fc'.*squeezed"):
        uv.split(Wrapped(lambda net, f: net.fc(f).squeeze()), x[:rows])


def test_parametrised_heads_are_errors(x: Tensor) -> None:
    new = layers()
    nn.utils.parametrizations.weight_norm(new[3])
    with pytest.raises(InputError, match=r"'3' is parametrised"):
        uv.split(new.eval(), x)


def test_a_computed_weight_in_the_body_is_copied(x: Tensor) -> None:
    net = layers()
    nn.utils.parametrizations.spectral_norm(net[1])
    model = uv.split(net.eval(), x)
    torch.testing.assert_close(model(model.place(x)), net(x))


def test_no_linear_layer_says_what_to_do(x: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 6), nn.Flatten()).eval()
    with pytest.raises(InputError, match=r"make the last layer an nn\.Linear"):
        uv.split(net, x)


def test_training_mode_and_unknown_heads(x: Tensor) -> None:
    with pytest.raises(InputError, match=r"training mode.*model.eval\(\)"):
        uv.split(layers().train(), x)
    dropout = layers(nn.Dropout())
    dropout[-1].train()
    with pytest.raises(InputError, match=r"training mode \(4\)"):
        uv.split(dropout, x)
    with pytest.raises(InputError, match="unknown head 'fc'"):
        uv.split(layers(), x, head="fc")


def test_hooks_that_change_the_output_are_an_error(x: Tensor) -> None:
    net = layers()
    net[2].register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(InputError, match="forward hook changes"):
        uv.split(net, x)


def test_wrong_image_shape_is_one_clear_error() -> None:
    with pytest.raises(InputError, match=r"failed on images of shape \(2, 1, 7, 7\)"):
        uv.split(layers(), torch.rand(2, 1, 7, 7))


def test_weights_trained_after_the_split_are_noticed(x: Tensor) -> None:
    net = layers()
    model = uv.split(net, x)
    with torch.no_grad():
        net[1].weight.add_(1)
    with pytest.raises(InputError, match="changed after split"):
        uv.record(
            model, x, torch.zeros(5, dtype=torch.int64), uv.attacks.pgd(eps=0.1, step_size=0.1), steps=1
        )
