"""Tiny random classifiers of transformers, saved to folders: their image processor becomes part of φ, and all else works."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import uncannyvalley as uv
from uncannyvalley import InputError, zoo
from uncannyvalley.zoo.input_transform import InputTransform, Resizing

transformers = pytest.importorskip("transformers")

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
SMALL = {"num_labels": 3, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16}
PATCHES = {**SMALL, "intermediate_size": 16, "image_size": 16, "patch_size": 4}
STAGES = {"num_labels": 3, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
SQUARE = {"height": 16, "width": 16}
KEPT_RATIO = {"size": {"shortest_edge": 32}, "crop_pct": 0.875, "resample": 3}

MODELS: dict[str, tuple[str, dict, str, dict]] = {
    "vit": ("ViT", PATCHES, "ViTImageProcessor", {"size": SQUARE, "resample": 2}),
    "deit": (
        "DeiT", PATCHES, "DeiTImageProcessor",
        {"size": {"height": 20, "width": 20}, "crop_size": SQUARE, "resample": 3},
    ),
    "resnet": ("ResNet", {**STAGES, "embedding_size": 8, "layer_type": "basic"}, "ConvNextImageProcessor", KEPT_RATIO),
    "convnext": ("ConvNext", STAGES, "ConvNextImageProcessor", KEPT_RATIO),
    "swin": (
        "Swin",
        {"num_labels": 3, "image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2],
         "window_size": 4},
        "ViTImageProcessor", {"size": SQUARE, "resample": 0},
    ),
}  # fmt: skip


def write(folder: Path, name: str, suffix: str = "ForImageClassification", **changes: object) -> nn.Module:
    """Save the random network ``name`` of MODELS with its processor's settings; the plain network."""
    family, settings, processor, preparing = MODELS[name]
    torch.manual_seed(3)
    configuration = getattr(transformers, f"{family}Config")(**settings)
    net = getattr(transformers, f"{family}{suffix}")(configuration).eval()
    net.save_pretrained(folder)
    written = {
        "image_processor_type": processor,
        "image_mean": MEAN,
        "image_std": STD,
        **preparing,
        **changes,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(written))
    return net


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, nn.Module]]:
    """The spec of a model of MODELS, with the plain network."""
    made: dict[str, tuple[str, nn.Module]] = {}

    def get(name: str) -> tuple[str, nn.Module]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = (f"hf:{folder}", write(folder, name))
        return made[name]

    return get


def images(height: int, width: int) -> Tensor:
    return torch.rand(4, 3, height, width, generator=torch.Generator().manual_seed(1))


def normalised(x: Tensor) -> Tensor:
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def centre(x: Tensor, edge: int) -> Tensor:
    top, left = (x.shape[-2] - edge) // 2, (x.shape[-1] - edge) // 2
    return x[..., top : top + edge, left : left + edge]


def resized(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if mode == "nearest-exact":
        return interpolate(x, size, mode=mode)
    return interpolate(x, size, mode=mode, antialias=True).clamp(0, 1)


BY_HAND: dict[str, tuple[tuple[int, int], Callable[[Tensor], Tensor]]] = {
    "vit": ((16, 16), lambda x: x),
    "deit": ((20, 20), lambda x: centre(x, 16)),
    "resnet": ((24, 18), lambda x: centre(resized(x, (48, 36), "bicubic"), 32)),
    "convnext": ((40, 50), lambda x: centre(resized(x, (36, 45), "bicubic"), 32)),
    "swin": ((16, 32), lambda x: resized(x, (16, 16), "nearest-exact")),
}
"""Sizes of images, and what the processors do to them besides normalising."""


@pytest.mark.parametrize("name", MODELS)
def test_logits_split_and_record(name: str, folders: Callable) -> None:
    spec, plain = folders(name)
    size, prepare = BY_HAND[name]
    x, net = images(*size), zoo.load(spec)
    with torch.no_grad():
        expected = plain(normalised(prepare(x))).logits
        torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-5)
    model = uv.split(net, x)
    assert model.head_name.startswith("net.classifier")
    torch.testing.assert_close(model.logits_of(x), expected, atol=1e-4, rtol=1e-4)
    y = expected.argmax(dim=1)
    walk = uv.record(net, x, y, uv.attacks.pgd(eps=8 / 255, step_size=2 / 255), steps=2)
    assert np.isfinite(walk.column("log_relative_sharpness")).all()
    assert (walk.column("loss")[:, -1] > walk.column("loss")[:, 0]).all()


@pytest.mark.parametrize("name", ["vit", "deit", "resnet"])
def test_the_transform_is_the_processor_on_real_images(name: str, folders: Callable, cifar: tuple) -> None:
    """On bytes of real images both differ by the processor's rounding between its passes alone."""
    spec, _ = folders(name)
    processor = transformers.AutoImageProcessor.from_pretrained(spec.removeprefix("hf:"), backend="pil")
    x = cifar[0][:8]
    given = [(one.permute(1, 2, 0) * 255).round().byte().numpy() for one in x]
    expected = processor(given, return_tensors="pt")["pixel_values"]
    difference = (zoo.load(spec).transform(x) - expected).abs() * torch.tensor(STD).view(1, 3, 1, 1)
    assert difference.quantile(0.99) <= 1 / 255
    assert difference.mean() <= 0.5 / 255


@pytest.mark.parametrize("name", ["vit", "deit", "resnet"])
def test_resizing_inside_the_features_differentiates(name: str, folders: Callable) -> None:
    transform = zoo.load(folders(name)[0]).transform.double()
    x = images(7, 9)[:1].double().requires_grad_(True)
    edge = 32 if name == "resnet" else 16
    assert transform(x).shape == (1, 3, edge, edge)
    assert torch.autograd.gradcheck(transform, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(transform, (x,), fast_mode=True)


def test_gradients_pass_through_the_whole_network(folders: Callable) -> None:
    net = zoo.load(folders("resnet")[0]).double().requires_grad_(False)
    x, other = images(11, 13).double()[:1], images(13, 11).double()[:1].transpose(2, 3)
    x.requires_grad_(True)
    (slope,) = torch.autograd.grad(net(x)[0, 0], x)
    step = 1e-5
    with torch.no_grad():
        change = (net(x + step * other)[0, 0] - net(x - step * other)[0, 0]) / (2 * step)
    assert (slope * other).sum().item() == pytest.approx(change.item(), rel=1e-4)


def test_attention_has_second_derivatives(folders: Callable) -> None:
    spec, plain = folders("vit")
    x = images(16, 16)
    y = plain(normalised(x)).logits.argmax(dim=1)
    layer = next(
        name for name, one in plain.named_modules() if name.startswith("vit.") and isinstance(one, nn.Linear)
    )
    found = uv.curvature(zoo.load(spec), x[:2], y[:2], layer=f"net.{layer}", quantity="trace")
    assert torch.isfinite(found.value).all()


def test_weights_from_a_file_instead_of_the_folder(folders: Callable, tmp_path: Path) -> None:
    spec, plain = folders("vit")
    bare = tmp_path / "bare"
    shutil.copytree(spec.removeprefix("hf:"), bare)
    (bare / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        zoo.load(f"hf:{bare}")
    torch.save(plain.state_dict(), tmp_path / "weights.pt")
    x = images(16, 16)
    with torch.no_grad():
        found = zoo.load(f"hf:{bare}", weights=tmp_path / "weights.pt")(x)
        torch.testing.assert_close(found, zoo.load(spec)(x))


def test_half_precision_checkpoints_are_measured_in_float32(folders: Callable, tmp_path: Path) -> None:
    spec, plain = folders("vit")
    shutil.copytree(spec.removeprefix("hf:"), tmp_path / "half")
    type(plain).from_pretrained(spec.removeprefix("hf:"), dtype=torch.float16).save_pretrained(
        tmp_path / "half"
    )
    assert {one.dtype for one in zoo.load(f"hf:{tmp_path / 'half'}").parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_measuring_in_half_precision(dtype: torch.dtype, folders: Callable) -> None:
    net, x = zoo.load(folders("deit")[0]), images(24, 30)
    with torch.no_grad():
        torch.testing.assert_close(
            uv.split(net, x, dtype=dtype).logits_of(x).float(), net(x), atol=0.02, rtol=0.02
        )


def test_a_head_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "vit", suffix="Model")
    with pytest.raises(InputError, match=r"no trained weights for classifier\.bias, classifier\.weight"):
        zoo.load(f"hf:{tmp_path}")


def test_two_averaged_heads_are_refused_by_split(tmp_path: Path) -> None:
    write(tmp_path, "deit", suffix="ForImageClassificationWithTeacher")
    with pytest.raises(InputError, match=r"distillation_classifier.*averaging of several heads"):
        uv.split(zoo.load(f"hf:{tmp_path}"), images(16, 16))


def test_processors_without_a_twin_are_refused(tmp_path: Path) -> None:
    for changes, says in (
        ({"resample": 1}, "filter number 1, which torch cannot differentiate"),
        ({"size": {"shortest_edge": 16, "longest_edge": 20}}, "a size without height and width"),
        ({"size": {"max_height": 16, "max_width": 16}}, "a size without height and width"),
        ({"do_pad": True, "pad_size": {"height": 40, "width": 40}}, "does more than resizing"),
        ({"image_mean": [0.5], "image_std": [0.1, 0.2]}, "the std of the normalisation has 2 values"),
    ):
        write(tmp_path, "vit", **changes)
        with pytest.raises(InputError, match=says):
            zoo.load(f"hf:{tmp_path}")


def test_processors_that_prepare_nothing_or_to_another_scale(tmp_path: Path) -> None:
    x = images(16, 16)
    plain = write(tmp_path, "vit", do_resize=False, do_normalize=False)
    with torch.no_grad():
        torch.testing.assert_close(zoo.load(f"hf:{tmp_path}")(x), plain(x).logits, atol=1e-5, rtol=1e-5)
        write(tmp_path, "vit", rescale_factor=1 / 127.5)
        expected = plain(normalised(2 * x)).logits
        torch.testing.assert_close(zoo.load(f"hf:{tmp_path}")(x), expected, atol=1e-5, rtol=1e-5)


def test_grey_models(tmp_path: Path) -> None:
    configuration = transformers.ViTConfig(**PATCHES, num_channels=1)
    plain = transformers.ViTForImageClassification(configuration).eval()
    plain.save_pretrained(tmp_path)
    preparing = {
        "image_processor_type": "ViTImageProcessor",
        "size": SQUARE,
        "image_mean": [0.5],
        "image_std": [0.4],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preparing))
    net, x = zoo.load(f"hf:{tmp_path}"), images(20, 28)[:, :1]
    with torch.no_grad():
        expected = plain((resized(x, (16, 16), "bilinear") - 0.5) / 0.4).logits
        torch.testing.assert_close(uv.split(net, x).logits_of(x), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match=r"shape \(n, 1, height, width\), got \(4, 3, 20, 28\)"):
        uv.split(net, images(20, 28))


def test_images_with_other_channels_are_refused(folders: Callable) -> None:
    net = zoo.load(folders("vit")[0])
    with pytest.raises(InputError, match=r"shape \(n, 3, height, width\), got \(4, 1, 16, 16\); grey images"):
        uv.split(net, images(16, 16)[:, :1])
    small = InputTransform(3, resizing=Resizing(size=9, crop=(16, 16)))
    with pytest.raises(InputError, match="images of 9 x 10 are smaller than the 16 x 16 pixels"):
        small(images(9, 10))


def test_missing_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: Callable) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=r"'no-one/no-model' cannot be loaded .*network for a first download"
    ):
        zoo.load("hf:no-one/no-model")
    with pytest.raises(InputError, match="cannot be loaded"):
        zoo.load(f"hf:{tmp_path}")
    unprepared = tmp_path / "unprepared"
    shutil.copytree(folders("vit")[0].removeprefix("hf:"), unprepared)
    (unprepared / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        zoo.load(f"hf:{unprepared}")
    with pytest.raises(InputError, match="unknown model argument 'width'"):
        zoo.load(folders("vit")[0], {"width": "2"})


class Hostile:
    """Unpickling it would leave a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def test_a_pickled_checkpoint_is_never_executed(folders: Callable, tmp_path: Path) -> None:
    spec, plain = folders("vit")
    folder = tmp_path / "pickled"
    shutil.copytree(spec.removeprefix("hf:"), folder)
    (folder / "model.safetensors").unlink()
    torch.save(plain.state_dict(), folder / "pytorch_model.bin")
    assert zoo.fingerprint(zoo.load(f"hf:{folder}")) == zoo.fingerprint(zoo.load(spec))
    torch.save({"classifier.weight": Hostile(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        zoo.load(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


def test_code_of_a_repository_never_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {
            "AutoConfig": "own.Config", "AutoModelForImageClassification": "own.Model"}})
    )  # fmt: skip
    with pytest.raises(InputError, match="cannot be loaded"):
        zoo.load(f"hf:{tmp_path}")
    assert not marker.exists()
