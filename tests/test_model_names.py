"""Names of models → networks that split, or one clear error.

timm, torchvision and RobustBench cannot be installed beside the torch of the tests: small stand-ins with the
functions that their documentation states take their places in ``sys.modules``, so these tests show how the names
use those functions, and not that the libraries have them.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import InputError, zoo

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def module(name: str, **contents: object) -> ModuleType:
    """A stand-in for a library's module."""
    made = ModuleType(name)
    vars(made).update(contents)
    return made


class Attentive(nn.Module):
    """A network with a head, and the switch that timm's attention has."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(classes)
        self.convolution, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)
        self.fused_attn = True

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.convolution(x).relu().mean(dim=(2, 3)))


def pillow_pipeline(edge: int, crop: int, interpolation: int) -> Callable[[Image.Image], Tensor]:
    """Shorter edge, centre crop and normalisation, as both libraries evaluate."""

    def prepare(image: Image.Image) -> Tensor:
        short, long = sorted(image.size)
        longer = int(edge * long / short)
        size = (longer, edge) if image.width >= image.height else (edge, longer)
        array = np.asarray(image.resize(size, interpolation)).transpose(2, 0, 1)
        top, left = (array.shape[1] - crop) // 2, (array.shape[2] - crop) // 2
        x = torch.from_numpy(array[:, top : top + crop, left : left + crop].copy()).float() / 255
        return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)

    return prepare


def timm_stand_in(**changes: object) -> ModuleType:
    """What the documentation of timm says of create_model, resolve_model_data_config and create_transform."""
    config = {"input_size": (3, 28, 28), "interpolation": "bicubic", "mean": MEAN, "std": STD, "crop_pct": 0.875,
              "crop_mode": "center", **changes}  # fmt: skip

    def create_model(name: str, pretrained: bool = False, num_classes: int = 5) -> nn.Module:
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        net = Attentive(num_classes)
        net.pretrained = pretrained
        return net

    def create_transform(input_size: tuple, is_training: bool, **settings: object) -> Callable:
        assert not is_training
        return pillow_pipeline(32, input_size[1], 3)

    data = SimpleNamespace(resolve_model_data_config=lambda net: config, create_transform=create_transform)
    return module("timm", create_model=create_model, data=data)


def images() -> Tensor:
    return torch.rand(3, 3, 30, 40, generator=torch.Generator().manual_seed(0))


def test_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "timm", timm_stand_in())
    net = zoo.load("timm:tiny")
    assert (net.net.pretrained, net.net.fused_attn) == (True, False)
    assert net.transform(images()).shape == (3, 3, 28, 28)
    assert uv.split(net, images()).head_name == "net.fc"
    torch.save(Attentive(7).state_dict(), tmp_path / "own.pt")
    own = zoo.load("timm:tiny", {"classes": "7"}, weights=tmp_path / "own.pt")
    assert (own.net.pretrained, own.net.fc.out_features) == (False, 7)
    for spec, arguments, says in (
        ("timm:huge", {}, r"cannot be loaded \(RuntimeError: Unknown model \(huge\)\)"),
        ("timm:tiny", {"classes": "7"}, "would make a random head"),
        ("timm:tiny", {"class": "7"}, "did you mean 'classes'"),
        ("timm:tiny", {"classes": "seven"}, "classes='seven' is no int"),
    ):
        with pytest.raises(InputError, match=says):
            zoo.load(spec, arguments)
    monkeypatch.setitem(sys.modules, "timm", timm_stand_in(crop_mode="border"))
    with pytest.raises(InputError, match="evaluation transform of timm:tiny does more than"):
        zoo.load("timm:tiny")
    monkeypatch.setitem(sys.modules, "timm", timm_stand_in(interpolation="lanczos"))
    with pytest.raises(InputError, match="unknown interpolation 'lanczos'"):
        zoo.load("timm:tiny")


class Preset:
    """The transforms of torchvision's weights for classification."""

    crop_size, resize_size, mean, std, antialias = [28], [32], list(MEAN), list(STD), True
    interpolation = SimpleNamespace(value="bilinear")

    def __call__(self, x: Tensor) -> Tensor:
        return pillow_pipeline(32, 28, 2)(Image.fromarray(x.permute(1, 2, 0).numpy()))


def torchvision_stand_in(preset: type = Preset) -> ModuleType:
    def get_model(name: str, weights: str | None, num_classes: int = 5) -> nn.Module:
        net = Attentive(num_classes)
        net.weights = weights
        return net

    def get_model_weights(name: str) -> Any:
        if name != "tiny":
            raise ValueError(f"Unknown model {name}")
        return SimpleNamespace(DEFAULT=SimpleNamespace(transforms=preset))

    return module("torchvision.models", get_model=get_model, get_model_weights=get_model_weights)


def test_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", torchvision_stand_in())
    net = zoo.load("torchvision:tiny")
    assert net.net.weights == "DEFAULT"
    assert uv.split(net, images()).head_name == "net.fc"
    torch.save(Attentive(5).state_dict(), tmp_path / "own.pt")
    assert zoo.load("torchvision:tiny", weights=tmp_path / "own.pt").net.weights is None
    with pytest.raises(InputError, match="Unknown model huge"):
        zoo.load("torchvision:huge")
    monkeypatch.setitem(sys.modules, "torchvision.models", torchvision_stand_in(SimpleNamespace))
    with pytest.raises(InputError, match="is no image classifier"):
        zoo.load("torchvision:tiny")


def test_robustbench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []

    def load_model(**settings: str) -> nn.Module:
        asked.append(settings)
        return Attentive(10)

    monkeypatch.setitem(sys.modules, "robustbench.utils", module("robustbench.utils", load_model=load_model))
    assert uv.split(zoo.load("robustbench:Standard"), images()).head_name == "fc"
    zoo.load("robustbench:Engstrom:imagenet:L2")
    kept = str(zoo.cache_folder() / "robustbench")
    assert asked == [
        {"model_name": "Standard", "dataset": "cifar10", "threat_model": "Linf", "model_dir": kept},
        {"model_name": "Engstrom", "dataset": "imagenet", "threat_model": "L2", "model_dir": kept},
    ]
    for spec, weights, says in (
        ("robustbench:a:b:c:d", None, r"write robustbench:NAME\[:DATASET"),
        ("robustbench:Standard", tmp_path / "own.pt", "leave weights out"),
    ):
        with pytest.raises(InputError, match=says):
            zoo.load(spec, weights=weights)


@pytest.mark.parametrize(
    ("spec", "missing", "says"),
    [
        ("hf:a/b", "transformers", r'pip install "uncannyvalley\[hf\]"'),
        ("timm:a", "timm", "pip install timm .*built for the installed torch"),
        ("torchvision:a", "torchvision.models", "pip install torchvision"),
        ("robustbench:a", "robustbench.utils", "pip install robustbench"),
    ],
)
def test_missing_packages(spec: str, missing: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        InputError, match=f"model '{spec}' needs the package {missing.partition('.')[0]} .*{says}"
    ):
        zoo.load(spec)


def test_a_torchvision_of_another_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"nms does not exist\): .*use an environment of its own"):
        zoo.load("torchvision:resnet18")


@pytest.mark.parametrize("name", ["resnet18", "wideresnet28-4", "densenet121", "vgg11-bn"])
def test_families(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    net = zoo.load(f"family:{name}", {"width": "0.06", "classes": "5"})
    assert torch.equal(torch.get_rng_state(), before)
    x = torch.rand(4, 3, 32, 32)
    model = uv.split(net, x)
    assert (model.classes, model.head_name.startswith("net.")) == (5, True)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in zoo.NORMALISATIONS["cifar10"])
    with torch.no_grad():
        torch.testing.assert_close(net(x), net.net((x - mean) / std))
    again = zoo.load(f"family:{name}", {"width": "0.06", "classes": "5"})
    assert zoo.fingerprint(again) == zoo.fingerprint(net)


def test_normalisations_of_families() -> None:
    x = torch.rand(2, 1, 28, 28)
    grey = {"width": "0.05", "channels": "1"}
    nets = [
        zoo.load("family:resnet18", grey | more)
        for more in ({}, {"normalise": "none"}, {"normalise": "mnist"})
    ]
    plain, none, mnist = (one.transform(x) for one in nets)
    assert torch.equal(plain, x)
    assert torch.equal(none, x)
    torch.testing.assert_close(mnist, (x - 0.1307) / 0.3081)
    assert len({zoo.fingerprint(one) for one in nets}) == 2
    colours = zoo.load("family:resnet18", {"width": "0.05"})
    with pytest.raises(InputError, match=r"shape \(n, 3, height, width\), got \(2, 1, 28, 28\); grey images"):
        uv.split(colours, x)
    for arguments, says in (
        ({"channels": "1", "normalise": "cifar10"}, "mean of the normalisation has 3 values"),
        ({"normalise": "cifar"}, "did you mean 'cifar10'"),
        ({"width": "wide"}, "width='wide' is no float"),
        ({"width": "-1"}, "width must be"),
        ({"depth": "3"}, "unknown model argument 'depth'"),
    ):
        with pytest.raises(InputError, match=says):
            zoo.load("family:resnet18", arguments)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("family:resnet", "unknown family 'resnet'; did you mean 'resnet18'"),
        ("family:", "lacks a name; write family:NAME"),
        ("hf:", "lacks a name"),
        ("hf", "unknown model 'hf'"),
        ("huggingface:a/b", r"unknown model .*hf:ORG/NAME"),
    ],
)
def test_names_that_are_none(spec: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        zoo.load(spec)


def test_the_list_of_kinds_is_complete() -> None:
    kinds = {form.partition(":")[0] for form in zoo.KINDS}
    assert kinds == {"demo", "path/to/file.py", "path/to/fitted", *zoo._LOADERS}
    assert all(zoo.KINDS.values())


def test_importing_the_rooms_imports_no_heavy_package() -> None:
    code = (
        "import sys, uncannyvalley.zoo, uncannyvalley.data\n"
        "print([one for one in ('transformers', 'datasets', 'timm', 'torchvision', 'sklearn') if one in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
