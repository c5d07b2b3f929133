"""Names of data → images as they are in their files, or one clear error.

torchvision cannot be installed beside the torch of the tests: a stand-in with the data sets' documented
arguments takes its place in ``sys.modules``.
"""

import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

import uncannyvalley as uv
from uncannyvalley import InputError, data

datasets = pytest.importorskip("datasets")

NAMES = ["cat", "dog", "frog"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the user's cache or asks the network."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)


def labelled(pixels: np.ndarray, **more: object) -> "datasets.Dataset":
    """Images with a ClassLabel called label, and columns of more (values, feature)."""
    columns = {"image": [Image.fromarray(one) for one in pixels], "label": [0, 1, 2, 0, 1, 2]}
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    for name, (values, feature) in more.items():
        columns[name], features[name] = values, feature
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def assert_holds(found: data.Images, pixels: np.ndarray, labels: list[int]) -> None:
    np.testing.assert_array_equal(found.pixels, pixels.transpose(0, 3, 1, 2))
    assert found.labels.tolist() == labels


def test_the_shared_images_in_the_layout_of_the_hub(shared: Path, tmp_path: Path) -> None:
    plain = data.load(f"parquet:{shared}/data/cifar10/test.parquet")
    (tmp_path / "set" / "data").mkdir(parents=True)
    for split, source in (("test", "cifar10/test"), ("train", "cifar10/train")):
        shutil.copy(
            shared / "data" / f"{source}.parquet", tmp_path / "set/data" / f"{split}-00000-of-00001.parquet"
        )
    found = data.load(f"hf:{tmp_path / 'set'}")
    assert found.fingerprint == plain.fingerprint
    assert found.class_names == plain.class_names
    assert len(data.load(f"hf:{tmp_path / 'set'}:train:label")) == 5085
    with pytest.raises(InputError, match="unknown split 'tests'; did you mean 'test'"):
        data.load(f"hf:{tmp_path / 'set'}:tests")


def test_saved_data_sets(tmp_path: Path, pixels: np.ndarray) -> None:
    folder = tmp_path / "with:colon"
    labelled(pixels).save_to_disk(folder)
    found = data.load(f"hf:{folder}")
    assert_holds(found, pixels, [0, 1, 2, 0, 1, 2])
    assert found.class_names == tuple(NAMES)
    assert found.first(2)[:].max() <= 1
    with pytest.raises(InputError, match=r"unknown split 'test'.*without splits"):
        data.load(f"hf:{folder}:test")
    both = tmp_path / "both"
    datasets.DatasetDict(train=labelled(pixels), test=labelled(pixels[::-1])).save_to_disk(both)
    assert_holds(data.load(f"hf:{both}"), pixels[::-1], [0, 1, 2, 0, 1, 2])
    assert_holds(data.load(f"hf:{both}:train"), pixels, [0, 1, 2, 0, 1, 2])
    neither = tmp_path / "neither"
    datasets.DatasetDict(train=labelled(pixels), validation=labelled(pixels)).save_to_disk(neither)
    with pytest.raises(InputError, match="no split 'test'; choose one with hf:NAME:SPLIT: train, validation"):
        data.load(f"hf:{neither}")


def test_folders_of_image_files_keep_their_bytes(tmp_path: Path, pixels: np.ndarray) -> None:
    for number, name in enumerate(NAMES[:2]):
        (tmp_path / "files/test" / name).mkdir(parents=True)
        Image.fromarray(pixels[number]).save(tmp_path / "files/test" / name / "1.png")
    found = data.load(f"hf:{tmp_path / 'files'}")
    assert_holds(found, pixels[:2], [0, 1])
    assert found.class_names == ("cat", "dog")


def test_the_label_column(tmp_path: Path, pixels: np.ndarray) -> None:
    numbers = [5, 4, 3, 2, 1, 0]
    fine = (numbers, datasets.ClassLabel(num_classes=6))
    cases: list[tuple[datasets.Dataset, str, list[int] | str]] = [
        (labelled(pixels, fine=fine), "", [0, 1, 2, 0, 1, 2]),
        (labelled(pixels, fine=fine), "train:fine", numbers),
        (labelled(pixels, fine=fine).remove_columns("label"), "", numbers),
        (labelled(pixels, fine=fine).rename_column("label", "coarse"), "", r"several label columns \(coarse, fine\)"),
        (labelled(pixels, fine=fine), "train:fin", "unknown label column 'fin'; did you mean 'fine'"),
        (labelled(pixels, labels=(numbers, datasets.Value("int32"))).remove_columns("label"), "", numbers),
        (labelled(pixels, age=(numbers, datasets.Value("int8"))).remove_columns("label"), "", "LABELS: age"),
        (labelled(pixels, age=(numbers, datasets.Value("int8"))), "train:age", numbers),
        (labelled(pixels).remove_columns("label"), "", "no label column.*none holds any"),
        (labelled(pixels).remove_columns("image"), "", "must have one column of images, it has 0; its columns: label"),
        (labelled(pixels, none=([0, None] * 3, datasets.ClassLabel(num_classes=2))), "train:none", "3 of 6 rows have no"),
        (labelled(pixels, hidden=([-1] * 6, datasets.ClassLabel(num_classes=2))), "train:hidden", "classes 0 and above"),
    ]  # fmt: skip
    for number, (made, wanted, expected) in enumerate(cases):
        folder = tmp_path / str(number)
        datasets.DatasetDict(train=made).save_to_disk(folder)
        spec = f"hf:{folder}:{wanted}" if wanted else f"hf:{folder}"
        if isinstance(expected, list):
            assert_holds(data.load(spec), pixels, expected)
        else:
            with pytest.raises(InputError, match=expected):
                data.load(spec)


def test_images_of_several_sizes_and_broken_ones(tmp_path: Path, pixels: np.ndarray) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    for name, second, says in (
        ("sizes", Image.fromarray(pixels[1][:3]), r"one size: row 1 has \(3, 3, 4\).*resize them first"),
        ("broken", {"bytes": b"no image", "path": None}, "row 1 cannot be decoded"),
        ("null", None, "row 1 cannot be decoded"),
    ):
        columns = {"image": [Image.fromarray(pixels[0]), second], "label": [0, 1]}
        datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / name)
        with pytest.raises(InputError, match=says):
            data.load(f"hf:{tmp_path / name}")


def test_images_that_are_paths_alone(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels[0]).save(tmp_path / "here.png")
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": None, "path": str(tmp_path / name)} for name in ("here.png", "gone.png")]
    schema = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}).arrow_schema
    for count, folder in ((1, "one"), (2, "two")):
        (tmp_path / folder).mkdir()
        table = pa.table({"image": pa.array(images[:count], struct), "label": [1, 0][:count]}, schema=schema)
        pq.write_table(table, tmp_path / folder / "test-00000-of-00001.parquet")
    assert_holds(data.load(f"hf:{tmp_path / 'one'}"), pixels[:1], [1])
    with pytest.raises(InputError, match=r"row 1 cannot be read: .*No such file"):
        data.load(f"hf:{tmp_path / 'two'}")


def test_data_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    for spec, says in (
        ("hf:no-one/no-data", "'no-one/no-data' cannot be loaded .*network for a first download"),
        (f"hf:{tmp_path / 'empty'}", "cannot be loaded"),
        ("hf:", "write hf:NAME, hf:NAME:SPLIT or"),
        ("hf:a/b:test:label:more", "write hf:NAME, hf:NAME:SPLIT or"),
    ):
        with pytest.raises(InputError, match=says):
            data.load(spec)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r'needs the package datasets .*pip install "uncannyvalley\[hf\]"'):
        data.load("hf:a/b")


def corrupted(folder: Path, x: Tensor, labels: np.ndarray) -> np.ndarray:
    """Five severities of fading, in the layout of CIFAR-10-C; (5, n, h, w, c)."""
    shown = (x.permute(0, 2, 3, 1) * 255).round().numpy()
    faded = np.stack([(shown * (1 - severity / 6)).astype(np.uint8) for severity in range(1, 6)])
    folder.mkdir(exist_ok=True)
    np.save(folder / "fade.npy", faded.reshape(-1, *shown.shape[1:]))
    np.save(folder / "noise.npy", faded[::-1].reshape(-1, *shown.shape[1:]))
    np.save(folder / "labels.npy", labels)
    return faded


def test_corruptions(cifar: tuple[Tensor, Tensor], tmp_path: Path, load_network) -> None:
    x, y = cifar[0][:40], cifar[1][:40]
    folder = tmp_path / "CIFAR:C"
    faded = corrupted(folder, x, y.numpy())
    every = data.load(f"corruptions:{folder}:fade")
    assert_holds(every, faded.reshape(-1, 32, 32, 3), y.tolist() * 5)
    for severity in (1, 3, 5):
        one = data.load(f"corruptions:{folder}:fade:{severity}")
        assert_holds(one, faded[severity - 1], y.tolist())
        torch.testing.assert_close(
            one[3:5], torch.from_numpy(faded[severity - 1, 3:5]).permute(0, 3, 1, 2) / 255
        )
    assert (
        data.load(f"corruptions:{folder}:noise:5").fingerprint
        == data.load(f"corruptions:{folder}:fade:1").fingerprint
    )
    assert isinstance(every.pixels, np.memmap)  # still in its file
    corrupted(folder, x, np.tile(y.numpy().astype(np.uint8), 5))  # the published labels
    assert_holds(data.load(f"corruptions:{folder}:fade:2"), faded[1], y.tolist())
    few = one.first(4)
    walk = uv.record(
        load_network("cifar10_resnet20"),
        few[:],
        few.labels,
        uv.attacks.pgd(eps=8 / 255, step_size=2 / 255),
        steps=1,
    )
    assert np.isfinite(walk.column("loss")).all()


def test_grey_corruptions_can_be_looked_at_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "fog.npy", np.arange(5 * 16, dtype=np.uint8).reshape(5, 4, 4, 1))
    np.save(tmp_path / "labels.npy", np.array([3]))
    found = data.load(f"corruptions:{tmp_path}:fog:2")
    torch.testing.assert_close(found[:].flatten(), torch.arange(16, 32) / 255)


def test_folders_that_hold_no_corruptions(tmp_path: Path) -> None:
    good, labels = np.zeros((10, 4, 4, 3), np.uint8), np.array([0, 1])
    np.save(tmp_path / "fog.npy", good)
    np.save(tmp_path / "snow.npy", good[:9])
    np.save(tmp_path / "rain.npy", good[:5])
    np.save(tmp_path / "wind.npy", good / 255)
    np.save(tmp_path / "hail.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "frost.npy").write_bytes((tmp_path / "fog.npy").read_bytes()[:200])
    with pytest.raises(InputError, match=r"no labels\.npy"):
        data.load(f"corruptions:{tmp_path}:fog")
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "nothing").mkdir()
    for rest, says in (
        (
            f"{tmp_path}",
            "choose a corruption with corruptions:FOLDER:NAME: fog, frost, hail, rain, snow, wind",
        ),
        (f"{tmp_path}:", "choose a corruption"),
        (f"{tmp_path}:frog", "unknown corruption 'frog'; did you mean 'fog'"),
        (f"{tmp_path}:fog:6", "severity must be a whole number from 1 to 5, got '6'"),
        (f"{tmp_path}:fog:", "severity must be"),
        (f"{tmp_path}:snow", r"snow\.npy holds 9 images and labels\.npy 2 classes"),
        (f"{tmp_path}:rain", r"rain\.npy holds 5 images and labels\.npy 2 classes"),
        (f"{tmp_path}:wind", r"wind\.npy must hold bytes .*float64 of shape \(10, 4, 4, 3\)"),
        (f"{tmp_path}:hail", r"hail\.npy cannot be read as npy"),
        (f"{tmp_path}:frost", r"frost\.npy cannot be read as npy"),
        (f"{tmp_path}/nothing", r"holds no corruptions; expected files like fog\.npy"),
        (f"{tmp_path}/nowhere:fog", "does not exist"),
        ("", "lacks a path"),
        (f"{tmp_path}/fog.npy", "names no folder"),
    ):
        with pytest.raises(InputError, match=says):
            data.load(f"corruptions:{rest}")


def torchvision_stand_in(pixels: np.ndarray) -> ModuleType:
    """Data sets with the arguments of torchvision's CIFAR10, ImageNet and CocoCaptions."""

    class Known:
        classes = NAMES

        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, row: int) -> tuple[Image.Image, object]:
            return Image.fromarray(pixels[row]), row % 3

    class CIFAR10(Known):
        def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
            assert (train, download) == (False, False)
            if not Path(root).is_dir():
                raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")

    class ImageNet(Known):
        def __init__(self, root: str, split: str = "train") -> None:
            if split not in ("train", "val"):
                raise ValueError(f"Unknown value '{split}' for argument split.")

    class CocoCaptions(Known):
        def __init__(self, root: str) -> None: ...

        def __getitem__(self, row: int) -> tuple[Image.Image, object]:
            return Image.fromarray(pixels[row]), ["a cat", "a pet"]

    made = ModuleType("torchvision.datasets")
    vars(made).update(CIFAR10=CIFAR10, ImageNet=ImageNet, CocoCaptions=CocoCaptions)
    return made


def test_torchvision(tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", torchvision_stand_in(pixels))
    for name in ("CIFAR10", "ImageNet"):
        found = data.load(f"torchvision:{name}:{tmp_path}")
        assert_holds(found, pixels, [0, 1, 2, 0, 1, 2])
        assert found.class_names == tuple(NAMES)
    for rest, says in (
        ("CIFAR10", "write torchvision:NAME:ROOT"),
        (f"CIFAR:{tmp_path}", "did you mean 'CIFAR10'"),
        (f"CIFAR10:{tmp_path}/none", "Dataset not found or corrupted.*nothing is downloaded"),
        (f"CocoCaptions:{tmp_path}", "does not give one image and one class"),
    ):
        with pytest.raises(InputError, match=says):
            data.load(f"torchvision:{rest}")
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(InputError, match=r"pip install torchvision .*environment of its own"):
        data.load(f"torchvision:CIFAR10:{tmp_path}")


def test_the_list_of_kinds_is_complete() -> None:
    assert {form.partition(":")[0] for form in data.KINDS} == set(data._READERS)
    assert all(data.KINDS.values())
