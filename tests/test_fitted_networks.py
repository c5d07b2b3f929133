"""Fitted networks: one file that is loaded wherever a model is named, proved, and that runs nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import InputError, zoo
from uncannyvalley.study.plan_file.grid import parse_grid
from uncannyvalley.zoo.fitted import NETWORK_FILE, Origin, origin_of, read_fitted, save_fitted
from uncannyvalley.zoo.heads import with_cosine_head

DIGITS = {"channels": "1"}

BUILDER = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, width: int, shift: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
        self.fc = nn.Linear(width, 10)
        self.register_buffer("shift", torch.tensor(shift), persistent=False)

    def forward(self, x):
        return self.fc(self.body(x + self.shift))

def build(width: int = 8, shift: float = 0.5) -> nn.Module:
    return Own(width, shift)
"""


def x_of(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def trained(net: nn.Module) -> nn.Module:
    """Other weights than the seed's, batch statistics too."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for one in (*net.parameters(), *net.buffers()):
            if one.is_floating_point() and one.numel() > 3:
                one.add_(0.1 * torch.rand(one.shape, generator=generator))
    return net


def own_file(folder: Path) -> str:
    (folder / "own.py").write_text(BUILDER)
    return f"{folder / 'own.py'}:build"


def saved(folder: Path, spec: str, arguments: dict[str, str], head: str, head_name: str) -> nn.Module:
    net = trained(zoo.load(spec, arguments, seed=3))
    if head == "cosine":
        net = with_cosine_head(net, head_name, 7.0)
    save_fitted(folder / NETWORK_FILE, net.eval(), Origin(spec, arguments, head, head_name))
    return net


@pytest.mark.parametrize("head", ["linear", "cosine"])
@pytest.mark.parametrize(
    ("spec", "arguments", "head_name", "shape"),
    [
        ("family:small-cnn", DIGITS, "net.20", (4, 1, 8, 8)),
        ("family:cnn-a", {"width": "0.25", "normalise": "none"}, "net.7", (4, 3, 32, 32)),
        ("family:resnet18", {"width": "0.05", "classes": "7"}, "net.linear", (2, 3, 16, 16)),
        ("demo", {}, "20", (4, 1, 8, 8)),
    ],
)
def test_named_networks_come_back_as_they_were_and_can_be_split(
    spec: str, arguments: dict[str, str], head_name: str, shape: tuple[int, ...], head: str, tmp_path: Path
) -> None:
    net = saved(tmp_path, spec, arguments, head, head_name)
    x = x_of(*shape)
    expected = net(x)
    for name in (tmp_path, tmp_path / NETWORK_FILE):
        again = zoo.load(str(name))
        assert not any(module.training for module in again.modules())
        torch.testing.assert_close(again(x), expected, rtol=1e-6, atol=1e-5)
        model = uv.split(again, x)
        assert model.head_name == (f"{head_name}.1" if head == "cosine" else head_name)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-4)
    assert all(one.requires_grad for one in again.parameters())


def test_files_of_one_network_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        saved(tmp_path / name, "family:small-cnn", DIGITS, "linear", "net.20")
    assert (tmp_path / "a" / NETWORK_FILE).read_bytes() == (tmp_path / "b" / NETWORK_FILE).read_bytes()


def test_loading_leaves_the_random_state(tmp_path: Path) -> None:
    saved(tmp_path, "family:small-cnn", DIGITS, "cosine", "net.20")
    before = torch.get_rng_state()
    zoo.load(str(tmp_path))
    assert torch.equal(before, torch.get_rng_state())


def test_float64_and_tied_weights_come_back(tmp_path: Path) -> None:
    net = trained(zoo.load("family:small-cnn", DIGITS)).double()
    net.net[3].weight = net.net[3].weight
    net.net[12].weight = net.net[15].weight
    save_fitted(tmp_path / NETWORK_FILE, net, Origin("family:small-cnn", DIGITS, "linear", "net.20"))
    assert read_fitted(tmp_path / NETWORK_FILE).weights["net.12.weight"].dtype == torch.float64
    net = trained(zoo.load("family:small-cnn", DIGITS)).double()
    save_fitted(tmp_path / NETWORK_FILE, net, Origin("family:small-cnn", DIGITS, "linear", "net.20"))
    again = zoo.load(str(tmp_path))
    assert torch.equal(again(x_of(2, 1, 8, 8).double()), net(x_of(2, 1, 8, 8).double()))


def test_a_python_file_runs_only_where_it_is_named(tmp_path: Path) -> None:
    spec = own_file(tmp_path)
    net = saved(tmp_path, spec, {"width": "5"}, "cosine", "fc")
    with pytest.raises(InputError) as caught:
        zoo.load(str(tmp_path))
    for words in ("code is run only where you name it", f"--model-arg file={spec}"):
        assert words in str(caught.value)
    moved = tmp_path / "elsewhere.py"
    moved.write_text(BUILDER)
    x = x_of(3, 1, 8, 8)
    for named in (spec, f"{moved}:build"):
        again = zoo.load(str(tmp_path), {"file": named})
        torch.testing.assert_close(again(x), net(x))
    assert zoo.runs_code(str(tmp_path), {"file": spec})
    assert not zoo.runs_code(str(tmp_path), {})
    with pytest.raises(InputError, match="do not fit what"):
        zoo.load(str(tmp_path), {"file": spec, "width": "6"})
    with pytest.raises(InputError, match="makes another network than the one in"):
        zoo.load(str(tmp_path), {"file": spec, "shift": "0.25"})


def test_a_network_made_in_python(tmp_path: Path) -> None:
    spec = own_file(tmp_path)
    net = trained(zoo.load(spec))
    save_fitted(tmp_path / NETWORK_FILE, net, None)
    with pytest.raises(InputError, match="was trained in Python and does not name its network"):
        zoo.load(str(tmp_path))
    assert zoo.fingerprint(zoo.load(str(tmp_path), {"file": spec})) == zoo.fingerprint(net)


def test_a_reference_network_by_its_file(
    shared: Path, load_network: Callable[[str], nn.Module], tmp_path: Path
) -> None:
    wrapper = tmp_path / "reference.py"
    wrapper.write_text(
        f"import sys\nsys.path.insert(0, {str(shared / 'models')!r})\n"
        "from load_reference import load\n\ndef build(name: str):\n    return load(name)\n"
    )
    spec = f"{wrapper}:build"
    net = trained(load_network("cifar10_marabou_small"))
    origin = Origin(spec, {"name": "cifar10_marabou_small"}, "linear", "")
    save_fitted(tmp_path / NETWORK_FILE, net, origin)
    again = zoo.load(str(tmp_path), {"file": spec})
    assert torch.equal(again(x_of(2, 3, 32, 32)), net(x_of(2, 3, 32, 32)))


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from test_hugging_face_models import write

    write(tmp_path / "vit", "vit")
    spec = f"hf:{tmp_path / 'vit'}"
    arguments: dict[str, str] = {}
    net = trained(zoo.load(spec))
    save_fitted(tmp_path / NETWORK_FILE, net, origin_of(spec, arguments, "linear", "net.classifier"))
    again = zoo.load(str(tmp_path))
    assert torch.equal(again(x_of(2, 3, 16, 16)), net(x_of(2, 3, 16, 16)))
    assert not torch.equal(again(x_of(2, 3, 16, 16)), zoo.load(spec)(x_of(2, 3, 16, 16)))


def test_origins_of_networks_that_are_trained_on(tmp_path: Path) -> None:
    saved(tmp_path, "family:small-cnn", DIGITS, "linear", "net.20")
    assert origin_of(str(tmp_path), {}, "cosine", "net.20") == Origin(
        "family:small-cnn", DIGITS, "cosine", "net.20"
    )
    saved(tmp_path, "family:small-cnn", DIGITS, "cosine", "net.20")
    before = Origin("family:small-cnn", DIGITS, "cosine", "net.20")
    assert origin_of(str(tmp_path), {}, "linear", "net.20.1") == before
    with pytest.raises(InputError, match="has a cosine head already"):
        origin_of(str(tmp_path), {}, "cosine", "net.20.1")


def test_every_flipped_bit_is_told(tmp_path: Path) -> None:
    saved(tmp_path, "family:cnn-a", {"width": "0.1", "channels": "1", "size": "8"}, "linear", "net.7")
    file = tmp_path / NETWORK_FILE
    content = file.read_bytes()
    for place in (0, 9, 40, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{NETWORK_FILE} was damaged"):
            zoo.load(str(tmp_path))
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="was damaged"):
        zoo.load(str(tmp_path))


def test_what_is_no_fitted_network(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(InputError, match=r"holds no network\.safetensors"):
        zoo.load(str(tmp_path))
    (tmp_path / "checkpoint.safetensors").touch()
    with pytest.raises(InputError, match="same uncanny train goes on"):
        zoo.load(str(tmp_path))
    inside = tmp_path / "model=a" / "seed=0"
    inside.mkdir(parents=True)
    (inside / NETWORK_FILE).touch()
    with pytest.raises(InputError, match=f"several fitted networks; name one of them, such as {inside}"):
        zoo.load(str(tmp_path))
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no fitted network: its stamp"):
        zoo.load(str(tmp_path / "other.safetensors"))
    with pytest.raises(InputError, match="unknown model"):
        zoo.load(str(tmp_path / "nowhere"))


def test_arguments_that_do_not_belong(tmp_path: Path) -> None:
    saved(tmp_path, "family:small-cnn", DIGITS, "linear", "net.20")
    for arguments, says in (
        ({"width": "2"}, "takes no arguments, got width"),
        ({"file": "own.py:build"}, "was trained from family:small-cnn, not from a Python file"),
    ):
        with pytest.raises(InputError, match=says):
            zoo.load(str(tmp_path), arguments)
    with pytest.raises(InputError, match="its own weights"):
        zoo.load(str(tmp_path), weights=tmp_path / NETWORK_FILE)


class Stateful(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"steps": 3}

    def set_extra_state(self, state: Any) -> None:
        pass


def test_networks_with_more_than_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"more than tensors \(_extra_state\)"):
        save_fitted(tmp_path / NETWORK_FILE, Stateful(2, 2), None)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        save_fitted(tmp_path / "missing" / NETWORK_FILE, nn.Linear(2, 2), None)


def test_untrained_networks_are_those_of_the_seed(tmp_path: Path) -> None:
    spec = own_file(tmp_path)
    for name, arguments in (("family:small-cnn", DIGITS), (spec, {})):
        prints = [zoo.fingerprint(zoo.load(name, arguments, seed=seed)) for seed in (0, 0, 1)]
        assert prints[0] == prints[1] != prints[2]
    assert zoo.fingerprint(zoo.load(spec)) == zoo.fingerprint(zoo.load(spec, seed=0))


@pytest.mark.parametrize(
    ("shape", "arguments", "parameters"),
    [((1, 28, 28), {"channels": "1", "size": "28"}, 166_406), ((3, 32, 32), {}, 214_918)],
    ids=["mnist", "cifar"],
)
def test_cnn_a_has_the_published_size(
    shape: tuple[int, ...], arguments: dict[str, str], parameters: int
) -> None:
    net = zoo.load("family:cnn-a", arguments)
    assert sum(one.numel() for one in net.parameters()) == parameters
    assert net(x_of(2, *shape)).shape == (2, 10)


def test_the_small_cnn_is_the_demo_network() -> None:
    net = zoo.load("family:small-cnn", DIGITS).net
    demo = zoo.demo()
    assert {key: one.shape for key, one in net.state_dict().items()} == {
        key: one.shape for key, one in demo.state_dict().items()
    }
    wide = zoo.load("family:small-cnn", {"width": "2", "classes": "3"})
    assert wide(x_of(2, 3, 40, 30)).shape == (2, 3)


def test_bad_sizes_are_refused() -> None:
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        for name, arguments, says in (
            ("cnn-a", {"size": "3"}, "size must be a whole number of at least 4"),
            ("cnn-a", {"size": "big"}, "size='big' is no int"),
            ("small-cnn", {"size": "8"}, "unknown model argument 'size'"),
            ("small-cnn", {"width": "0"}, "width must be"),
            ("smal-cnn", {}, "did you mean 'small-cnn'"),
        ):
            with pytest.raises(InputError, match=says):
                zoo.load(f"family:{name}", arguments)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_plan_files_of_studies_find_fitted_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("runs/a", "runs/b", "demo"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / NETWORK_FILE).touch()
    own_file(tmp_path)
    plan = """
        models = ["runs/a", "runs/b", "demo", "runs/a/network.safetensors", "runs/c"]
        [[models]]
        name = "own"
        model = "runs/a"
        arguments = {file = "own.py:build"}
    """
    body = plan.replace("models = [", '[[models]]\nname = "listed"\nmodel = [')
    monkeypatch.chdir("/")
    cells = parse_grid(body, "PLAN.toml", tmp_path).cells()
    models = [cell.request.model for cell in cells]
    folder = str(tmp_path)
    assert models == [
        f"{folder}/runs/a", f"{folder}/runs/b", "demo", f"{folder}/runs/a/network.safetensors", "runs/c", f"{folder}/runs/a",
    ]  # fmt: skip
    assert cells[-1].request.model_arguments == {"file": f"{folder}/own.py:build"}
    assert json.dumps([cell.labels["model"] for cell in cells[:2]]) == '["listed-a", "listed-b"]'
