"""Files of weights: read without running anything in them, matched strictly, refused with the keys that differ."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from uncannyvalley import InputError, zoo

SPEC, SETTINGS = "family:resnet18", {"width": "0.05", "classes": "4"}


def trained() -> nn.Module:
    """The network of SPEC with weights that no call makes by itself."""
    net = zoo.load(SPEC, SETTINGS)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1.5)
    return net.net


def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return OrderedDict((prefix + key, value) for key, value in state.items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"epoch": 3, "best": 0.9, "model_state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model": prefixed(state, "module.")},
        lambda state: {"net": prefixed(state, "_orig_mod.")},
        lambda state: {"state_dict": {"net": prefixed(state, "module._orig_mod.")}},
        lambda state: prefixed(state, "net."),
        lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
    ],
)
def test_the_usual_wrappings(wrap: Any, tmp_path: Path) -> None:
    net, file = trained(), tmp_path / "weights.pth"
    torch.save(wrap(net.state_dict()), file)
    loaded = zoo.load(SPEC, SETTINGS, weights=file)
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.net.state_dict()[name], tensor), name
    assert zoo.fingerprint(loaded) != zoo.fingerprint(zoo.load(SPEC, SETTINGS))


def test_safetensors_and_whole_wrapped_networks(tmp_path: Path) -> None:
    net = trained()
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    loaded = zoo.load(SPEC, SETTINGS, weights=str(tmp_path / "weights.safetensors"))
    save_file(loaded.state_dict(), tmp_path / "wrapped.safetensors")
    again = zoo.load(SPEC, SETTINGS, weights=tmp_path / "wrapped.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded(images()), again(images()))
        assert not torch.equal(loaded(images()), zoo.load(SPEC, SETTINGS)(images()))


def test_weights_of_networks_from_a_python_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\ndef build(width: int = 5):\n"
        "    return nn.Sequential(nn.Flatten(), nn.ModuleDict({'module': nn.Linear(4, width)})['module']).eval()\n"
        "class Inside(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.module = nn.Linear(4, 2)\n"
        "    def forward(self, x):\n        return self.module(x.flatten(1))\n"
        "def inside(): return Inside().eval()\n"
    )
    state = {"1.weight": torch.ones(5, 4), "1.bias": torch.zeros(5)}
    torch.save(state, tmp_path / "plain.pt")
    assert zoo.load(f"{tmp_path}/own.py:build", weights=tmp_path / "plain.pt")[1].weight.eq(1).all()
    torch.save({"module.weight": torch.ones(2, 4), "module.bias": torch.zeros(2)}, tmp_path / "inside.pt")
    assert zoo.load(f"{tmp_path}/own.py:inside", weights=tmp_path / "inside.pt").module.weight.eq(1).all()
    with pytest.raises(
        InputError, match=r"2 of another shape \(1\.weight \(5, 4\) where the model has \(7, 4\)"
    ):
        zoo.load(f"{tmp_path}/own.py:build", {"width": "7"}, weights=tmp_path / "plain.pt")


def test_keys_that_differ_are_listed_and_nothing_is_loaded(tmp_path: Path) -> None:
    net, file = trained(), tmp_path / "weights.pt"
    state = dict(net.state_dict())
    names = list(state)
    state["extra.weight"] = torch.zeros(1)
    state[names[0]] = state[names[0]][:1]
    for name in names[-6:]:
        del state[name]
    torch.save(state, file)
    before = zoo.fingerprint(net)
    with pytest.raises(InputError) as caught:
        zoo.load_weights(net, file)
    said = str(caught.value)
    assert "missing (" in said
    assert ", …)" in said
    assert "1 not expected (extra.weight)" in said
    assert f"1 of another shape ({names[0]} (1, " in said
    assert zoo.fingerprint(net) == before


class Hostile:
    """Unpickling it would leave a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def test_pickles_are_never_executed(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"state_dict": trained().state_dict(), "more": Hostile(marker)}, tmp_path / "zipped.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Hostile(marker), protocol=2))
    torch.save(trained(), tmp_path / "module.pt")
    for name in ("zipped.pt", "bare.pt", "module.pt"):
        with pytest.raises(InputError, match="could run code and was not loaded"):
            zoo.load(SPEC, SETTINGS, weights=tmp_path / name)
    assert not marker.exists()
    pickle.loads((tmp_path / "bare.pt").read_bytes())  # the file is what it claims to be
    assert marker.exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save({}, tmp_path / "empty.pt")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "numbers.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK nothing")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for name, says in (
        ("none.pt", "does not exist"),
        ("tensor.pt", "no state dict but Tensor"),
        ("empty.pt", "no state dict"),
        ("numbers.pt", r"more than tensors \(epoch, lr\)"),
        ("broken.pt", "cannot be read as weights"),
        ("broken.safetensors", "cannot be read as safetensors"),
    ):
        with pytest.raises(InputError, match=says):
            zoo.load(SPEC, SETTINGS, weights=tmp_path / name)
    with pytest.raises(InputError, match="demo model trains its own weights"):
        zoo.load("demo", weights=tmp_path / "tensor.pt")
