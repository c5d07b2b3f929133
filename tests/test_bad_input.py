"""What cannot be used gets one clear error that names what was expected, what came, and what to do."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from jaxtyping import config
from PIL import Image
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import InputError, data, zoo


@pytest.fixture(autouse=True)
def _as_users_run_it() -> Iterator[None]:
    """Without the shape checks of the tests, which would refuse wrong types before the package can."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def pgd():
    return uv.attacks.pgd(eps=0.1, step_size=0.05)


@pytest.fixture
def xy(small_images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return small_images


def broken_image(x: Tensor, value: float) -> Tensor:
    x = x.clone()
    x[3, 0, 2, 2] = value
    return x


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: broken_image(x, float("nan")), r"NaN or infinite values in 1 of 12 images \(first: 3\)"),
        (lambda x: broken_image(x, float("inf")), "NaN or infinite"),
        (lambda x: x - 0.5, r"must lie in \[0, 1\], got values from -0\."),
        (lambda x: x * 255, r"must lie in \[0, 1\]"),
        (lambda x: (x * 255).byte(), r"torch\.uint8; for bytes write x\.float\(\) / 255"),
        (lambda x: x[:0], "x is empty"),
        (lambda x: x[0, 0, 0], "must have a batch axis"),
        (lambda x: x[:, :, :4], "failed on images of shape"),
        (lambda x: [1, 2], "got list"),
    ],
)
def test_images(change, says: str, small_net: nn.Module, xy: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=says):
        uv.record(small_net, change(xy[0]), xy[1], pgd(), steps=1)


def test_images_of_another_shape_than_the_sample(small_net: nn.Module, xy: tuple[Tensor, Tensor]) -> None:
    model = uv.split(small_net, xy[0])
    with pytest.raises(InputError, match=r"failed on images of shape \(1, 1, 4, 6\)"):
        uv.record(model, xy[0][:, :, :4], xy[1], pgd(), steps=1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda y: y + 4, "classes 0 to 3, got values from"),
        (lambda y: y - 5, "classes 0 and above"),
        (lambda y: y.float(), r"int64 tensor of class numbers, got torch\.float32"),
        (lambda y: y[:5], "one class for each of the 12 images"),
        (lambda y: nn.functional.one_hot(y, 4), "one class for each"),
    ],
)
def test_labels(change, says: str, small_net: nn.Module, xy: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=says):
        uv.record(small_net, xy[0], change(xy[1]), pgd(), steps=1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"batch_size": 0}, "batch_size"),
        ({"restarts": 0}, "restarts"),
        ({"every": 0}, "every"),
        ({"seed": -1}, "seed"),
        ({"ids": [1, 2]}, "ids must name each of the 12"),
        ({"ids": [7] * 12}, "ids must be distinct"),
        ({"measures": ["log_relative_sharpnes"]}, "did you mean 'log_relative_sharpness'"),
        ({"measures": "loss"}, "list of names"),
        ({"target": 1}, "not targeted"),
        ({"keep": "everything"}, "keep must be"),
    ],
)
def test_options(options: dict, says: str, small_net: nn.Module, xy: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=says):
        uv.record(small_net, *xy, pgd(), **({"steps": 1} | options))


@pytest.mark.parametrize("name", ["pgd", "momentum", "noise", "assist", "fgsm"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"eps": 0}, "eps must be a finite number above 0"),
        ({"eps": -0.1}, "eps must be"),
        ({"eps": float("nan")}, "eps must be"),
        ({"eps": "8/255"}, "eps is a number"),
        ({"step_size": 0.0}, "step_size must be"),
        ({"norm": "l3"}, "unknown norm 'l3'; did you mean 'l2'"),
    ],
)
def test_attacks(name: str, options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        uv.attacks.by_name(name)(**({"eps": 0.1, "step_size": 0.1} | options))


def test_targets_and_controls(small_net: nn.Module, xy: tuple[Tensor, Tensor]) -> None:
    targeted = uv.attacks.pgd(eps=0.1, step_size=0.1, targeted=True)
    with pytest.raises(InputError, match="target equals the true class of"):
        uv.record(small_net, *xy, targeted, steps=1, target=int(xy[1][0]))
    with pytest.raises(InputError, match="target must hold classes 0 to 3"):
        uv.record(small_net, *xy, targeted, steps=1, target=9)
    with pytest.raises(InputError, match="aims at no class"):
        uv.attacks.noise(eps=0.1, step_size=0.1, targeted=True)
    with pytest.raises(InputError, match="unknown attack 'pdg'; did you mean 'pgd'"):
        uv.attacks.by_name("pdg")


class Masked(nn.Module):
    """The classifier sees rounded pixels, so no gradient reaches the input."""

    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        self.behind = behind

    def forward(self, x: Tensor) -> Tensor:
        return self.behind((x * 4).round() / 4)


def test_masked_gradients(small_net: nn.Module, xy: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match="exactly zero for all of 12 images"):
        uv.record(Masked(small_net).eval(), *xy, pgd(), steps=1, batch_size=5)


def test_one_image_without_gradient_is_no_mistake_of_the_user(
    small_net: nn.Module, xy: tuple[Tensor, Tensor]
) -> None:
    """Whatever batch it falls into: what is refused must not depend on the batch size."""

    class DeadOnBlack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.behind = small_net

        def forward(self, x: Tensor) -> Tensor:
            return self.behind(x * (x.amax(dim=(1, 2, 3), keepdim=True) > 0))

    x = torch.cat([torch.zeros(1, 1, 6, 6), xy[0][1:]])
    for batch_size in (1, 12):
        trajectory = uv.record(DeadOnBlack().eval(), x, xy[1], pgd(), steps=1, batch_size=batch_size)
        assert trajectory.column("distance_linf")[0, 1] == 0


def test_a_detached_network(small_net: nn.Module, xy: tuple[Tensor, Tensor]) -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.behind = small_net

        def forward(self, x: Tensor) -> Tensor:
            return self.behind(x.detach())

    with pytest.raises(InputError, match="exactly zero"):
        uv.record(Detached().eval(), *xy, pgd(), steps=1)


def test_a_network_that_fails_in_the_walk(small_net: nn.Module, xy: tuple[Tensor, Tensor]) -> None:
    class Bursts(nn.Module):
        """Finite on the given images, infinite a step away."""

        def __init__(self) -> None:
            super().__init__()
            self.behind = small_net
            self.known = xy[0].clone()

        def forward(self, x: Tensor) -> Tensor:
            near = (x[:, None] - self.known[None, :]).abs().flatten(2).amax(dim=2).amin(dim=1) < 1e-3
            mirrored = (1 - x[:, None] - self.known[None, :]).abs().flatten(2).amax(dim=2).amin(dim=1) < 1e-3
            return self.behind(x / (near | mirrored).float()[:, None, None, None])

    with pytest.raises(InputError, match="NaN or infinite logits for example 0 at row 1"):
        uv.record(Bursts().eval(), *xy, pgd(), steps=2)


def test_readers_of_trajectories(small_net: nn.Module, xy: tuple[Tensor, Tensor]) -> None:
    trajectory = uv.record(small_net, *xy, pgd(), steps=1, measures=["loss"])
    with pytest.raises(InputError, match="did you mean 'loss'"):
        trajectory.column("los")
    with pytest.raises(InputError, match="no walk was recorded for restart 3"):
        trajectory.column("loss", restart=3)
    with pytest.raises(InputError, match="was not targeted"):
        trajectory.column("target")
    with pytest.raises(InputError, match="is no trajectory"):
        _ = uv.Trajectory(pa.table({"a": [1]})).about


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_parquet(path: Path, images: list[bytes], labels: list[int] | None) -> str:
    struct = pa.array(
        [{"bytes": image, "path": None} for image in images],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    columns = {"image": struct} | ({} if labels is None else {"label": pa.array(labels, pa.int64())})
    pq.write_table(pa.table(columns), path)
    return f"parquet:{path}"


def test_parquet_files(tmp_path: Path) -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    path = tmp_path / "images.parquet"
    good = data.load(write_parquet(path, [png(grey), png(grey)], [0, 1]))
    np.testing.assert_array_equal(good.pixels[0, 0], grey)
    assert good[:].max() <= 15 / 255
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        data.load(f"parquet:{path}")
    for images, labels, says in (
        ([png(grey), b"not an image"], [0, 1], "row 1 cannot be decoded"),
        ([png(grey), png(grey[:2])], [0, 1], r"one size: row 1 has \(1, 2, 4\)"),
        ([png(grey)], None, "integer 'label'"),
        ([png(grey)], [-1], "classes 0 and above"),
        ([], [], "no images"),
    ):
        with pytest.raises(InputError, match=says):
            data.load(write_parquet(path, images, labels))


def test_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    spec = f"npz:{path}"
    np.savez(path, x=np.zeros((2, 5, 5, 3), np.uint8), y=np.array([0, 1]))
    assert data.load(spec).pixels.shape == (2, 3, 5, 5)
    for arrays, says in (
        ({"x": np.zeros((2, 1, 3, 3)) + 2.0, "y": np.array([0, 1])}, r"must lie in \[0, 1\]"),
        ({"x": np.zeros((2, 1, 3, 3), np.int32), "y": np.array([0, 1])}, "uint8 or float"),
        ({"x": np.zeros((2, 1, 3, 3)), "y": np.array([0, 1, 2])}, "one label for each image"),
        ({"x": np.zeros((2, 1, 3, 3)), "y": np.array([0.5, 1])}, "int64 tensor"),
        ({"images": np.zeros(3)}, "must hold arrays x and y"),
        ({"x": np.zeros((0, 1, 3, 3)), "y": np.zeros(0, int)}, "no images"),
        ({"x": np.array([{"a": 1}], dtype=object), "y": np.array([0])}, "cannot be read as npz"),
    ):
        np.savez(path, **arrays, allow_pickle=True)
        with pytest.raises(InputError, match=says):
            data.load(spec)
    path.write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="cannot be read as npz"):
        data.load(spec)


def test_folders_of_images(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png(np.zeros((3, 3, 3), np.uint8)))
    images = data.load(f"folder:{tmp_path}")
    assert images.class_names == ("cat", "dog")
    assert images.pixels.shape == (2, 3, 3, 3)
    (tmp_path / "dog" / "2.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"2\.png cannot be decoded"):
        data.load(f"folder:{tmp_path}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        data.load(f"folder:{tmp_path / 'empty'}")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("digit", "did you mean 'digits'"),
        ("digits:all", "unknown part of digits"),
        ("parquet:", "lacks a path"),
        ("parquet:/nowhere/at/all.parquet", "does not exist"),
        ("imagenet", "unknown kind of data"),
    ],
)
def test_names_of_data(spec: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        data.load(spec)


MODEL_FILE = """
from torch import nn
from sidekick import WIDTH

def build(width: int = WIDTH, scale: float = 1.0, name="plain"):
    assert isinstance(width, int) and isinstance(scale, float) and isinstance(name, str)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10)).eval()

def broken(): raise KeyError("weights")
def wrong(): return "a model"
"""


def test_model_files(tmp_path: Path) -> None:
    file = tmp_path / "with:colon.py"
    file.write_text(MODEL_FILE)
    (tmp_path / "sidekick.py").write_text("WIDTH = 5")
    assert zoo.load(f"{file}:build")[1].out_features == 5
    assert zoo.load(f"{file}:build", {"width": "7", "scale": "2", "name": "3"})[1].out_features == 7
    for spec, arguments, says in (
        (f"{file}:builds", {}, "did you mean 'build'"),
        (f"{file}:broken", {}, "failed: KeyError"),
        (f"{file}:wrong", {}, r"must return a torch\.nn\.Module, it returned str"),
        (f"{file}:build", {"width": "wide"}, "width='wide'"),
        (f"{file}:build", {"depth": "3"}, "unknown model argument 'depth'"),
        (f"{file}", {}, r"names no callable|does not exist"),
        (f"{tmp_path}/none.py:build", {}, "does not exist"),
        ("resnet", {}, "unknown model"),
    ):
        with pytest.raises(InputError, match=says):
            zoo.load(spec, arguments)


def test_a_broken_cache_is_trained_anew() -> None:
    zoo.demo()
    path = zoo.cache_folder() / f"{zoo.DEMO_RECIPE}.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert zoo.demo_accuracy() >= 0.97
    assert torch.equal(torch.get_rng_state(), before)


def test_a_measure_s_name_belongs_to_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's cell may be run again; another function may not take a name."""
    from uncannyvalley.measures import available, measure, registry

    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    def run_the_cell(factor: float) -> None:
        @measure("scaled_loss", unit="nats", order=0, default=False)
        def scaled_loss(probe):
            return factor * probe.loss

    run_the_cell(1.0)
    run_the_cell(2.0)
    assert available()["scaled_loss"].fn.__closure__[0].cell_contents == 2.0
    for taken in ("scaled_loss", "loss"):
        with pytest.raises(InputError, match=f"a measure named '{taken}' exists already; choose another"):
            measure(taken, unit="nats", order=0)(lambda probe: probe.loss)
