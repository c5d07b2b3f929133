"""A detector on disk: the same detector again, for the same network only, and nothing else is believed."""

import dataclasses
import json
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import config
from safetensors.torch import load, save
from torch import Tensor, nn

from full_disk import no_file_grows_beyond
from uncannyvalley import ImageDetector, InputError, zoo
from uncannyvalley.detect.questions import Question
from uncannyvalley.detect.recipes import Recipe
from uncannyvalley.detect.saving import about_detector
from uncannyvalley.splitting import split
from uncannyvalley.storing.stamp import BLANK, is_intact, stamp

FLIPS = 200


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def of(*columns: str) -> Recipe:
    both = Question("all", dict.fromkeys(columns, 1.0))
    return Recipe(
        "of a test", columns, (both, Question("one", {columns[0]: 2.0}, "low", given=columns[1:], weight=0.5))
    )


KINDS: dict[str, dict[str, Any]] = {
    "budget 1": {"budget": 1},
    "budget 4": {"budget": 4, "fpr": 0.1, "seed": 5},
    "budget 16": {"budget": 16},
    "walks": {"recipe": of("log_odds@climb2", "rise@descent1")},
    "layers": {"recipe": of("log_odds", "inner_sharpness@3")},
    "memory": {"recipe": of("log_mahalanobis", "log_local_dimension", "travel@noise3")},
}


@pytest.fixture
def fitted(small_net: nn.Module) -> ImageDetector:
    return ImageDetector(small_net, budget=4).fit(images(120), images(60, seed=1))


@pytest.fixture
def file(fitted: ImageDetector, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "detector.uv", model_name="a small one")
    return tmp_path / "detector.uv"


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS.keys())
def test_the_same_detector_again(settings: dict[str, Any], small_net: nn.Module, tmp_path: Path) -> None:
    found = ImageDetector(small_net, **settings).fit(images(120))
    found.recalibrate(images(150, seed=3), 0.1)
    found.save(tmp_path / "first", model_name="named")
    again = ImageDetector.load(tmp_path / "first", small_net)
    x = images(40, seed=2)
    assert np.array_equal(again.p_values(x), found.p_values(x))
    assert np.array_equal(again.score_samples(x), found.score_samples(x))
    assert np.array_equal(again.predict(x), found.predict(x))
    assert {name: one.tolist() for name, one in again.explain(x).items()} == {
        name: one.tolist() for name, one in found.explain(x).items()
    }
    for what in ("fpr", "budget", "seed", "threshold", "notes", "forwards", "backwards"):
        assert getattr(again, what) == getattr(found, what), what
    assert again.recipe.columns == found.recipe.columns
    for one, other in zip(again.recipe.questions, found.recipe.questions, strict=True):
        for part in dataclasses.fields(Question):
            first, second = getattr(one, part.name), getattr(other, part.name)
            assert (tuple(first) if part.name == "given" else first) == (
                tuple(second) if part.name == "given" else second
            )
    assert again.calibration.contamination == found.calibration.contamination == 15
    assert again.calibration.interval() == found.calibration.interval()
    again.save(tmp_path / "second", model_name="named")
    assert (tmp_path / "second").read_bytes() == (tmp_path / "first").read_bytes()
    about = about_detector(tmp_path / "first")
    assert (about.model.name, about.fpr, about.budget) == ("named", found.fpr, found.budget)


def test_two_of_the_same_are_one_file(small_net: nn.Module, tmp_path: Path) -> None:
    for name in ("first", "second"):
        ImageDetector(small_net, budget=4).fit(images(120)).save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_numpy_settings_are_saved(small_net: nn.Module, tmp_path: Path) -> None:
    config.update("jaxtyping_disable", True)
    try:
        found = ImageDetector(small_net, fpr=np.float64(0.1), budget=np.int64(4), seed=np.int64(3))  # type: ignore[arg-type]
        found.fit(images(120)).save(tmp_path / "one")
    finally:
        config.update("jaxtyping_disable", False)
    assert ImageDetector.load(tmp_path / "one", small_net).seed == 3


def test_a_split_model_or_its_network(
    fitted: ImageDetector, file: Path, small_net: nn.Module, tmp_path: Path
) -> None:
    x, model = images(30, seed=2), split(small_net, images(8))
    expected = fitted.p_values(x)
    assert np.array_equal(ImageDetector.load(file, model).p_values(x), expected)
    ImageDetector(model, budget=4).fit(images(120), images(60, seed=1)).save(tmp_path / "of a split")
    assert np.array_equal(ImageDetector.load(tmp_path / "of a split", small_net).p_values(x), expected)


def test_another_network_is_refused(file: Path, small_net: nn.Module) -> None:
    with torch.no_grad():
        small_net[0].weight[0, 0, 0, 0] += 1e-7
    with pytest.raises(
        InputError, match=r"fitted with another network \(a small one\): weights SHA-256 [0-9a-f]{16}…"
    ):
        ImageDetector.load(file, small_net)
    with pytest.raises(InputError, match="another network"):
        ImageDetector.load(file, zoo.load("family:resnet18", {"width": "0.05", "classes": "4"}))


def test_a_network_of_other_layers_is_refused(file: Path, small_net: nn.Module) -> None:
    small_net[2] = nn.Tanh()  # the same weights
    with pytest.raises(InputError, match="another network"):
        ImageDetector.load(file, small_net)


@pytest.mark.parametrize("given", [None, "resnet", 5])
def test_what_is_no_network(file: Path, given: Any) -> None:
    config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(InputError, match=r"torch\.nn\.Module"):
            ImageDetector.load(file, given)
    finally:
        config.update("jaxtyping_disable", False)


def test_a_network_in_training(file: Path, small_net: nn.Module) -> None:
    with pytest.raises(InputError, match="training mode"):
        ImageDetector.load(file, small_net.train())


def test_a_network_that_changed_since_is_not_saved(
    fitted: ImageDetector, small_net: nn.Module, tmp_path: Path
) -> None:
    with torch.no_grad():
        small_net[-1].weight.mul_(2)
    with pytest.raises(InputError, match="weights changed"):
        fitted.save(tmp_path / "one")
    assert not list(tmp_path.iterdir())


def test_loaded_detectors_notice_changed_weights(file: Path, small_net: nn.Module) -> None:
    again = ImageDetector.load(file, small_net)
    with torch.no_grad():
        small_net[-1].weight.mul_(2)
    with pytest.raises(InputError, match="weights changed"):
        again.predict(images(3))


# --- damage -------------------------------------------------------------------------------------------


def test_flipped_bits_anywhere(file: Path, small_net: nn.Module) -> None:
    whole, draw = file.read_bytes(), random.Random(0)
    length = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(12), *draw.sample(range(length), 60), *draw.sample(range(len(whole)), FLIPS - 72)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="no detector, or damaged"):
            ImageDetector.load(file, small_net)
    file.write_bytes(whole)
    ImageDetector.load(file, small_net)


def test_files_cut_short_or_with_more_behind(file: Path, small_net: nn.Module) -> None:
    whole, draw = file.read_bytes(), random.Random(1)
    for content in [
        *(whole[:end] for end in (0, 1, 7, 8, 9, len(whole) - 1, *draw.sample(range(len(whole)), 30))),
        whole + b"\0", whole + whole, whole[1:], whole[::-1],
    ]:  # fmt: skip
        file.write_bytes(content)
        for read in (lambda: ImageDetector.load(file, small_net), lambda: about_detector(file)):
            with pytest.raises(InputError, match=r"detector\.uv is no detector, or damaged"):
                read()


def test_files_that_are_not_there(tmp_path: Path, small_net: nn.Module) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match=r"cannot be read .*; give the file of a detector"):
            ImageDetector.load(path, small_net)


def test_a_full_disk_leaves_the_old_file(file: Path, fitted: ImageDetector, small_net: nn.Module) -> None:
    whole = file.read_bytes()
    fitted.recalibrate(images(100, seed=8), 0.0)
    with no_file_grows_beyond(1000), pytest.raises(InputError, match="cannot write"):
        fitted.save(file)
    assert file.read_bytes() == whole
    assert [one.name for one in file.parent.iterdir()] == [file.name]
    with pytest.raises(InputError, match="cannot write"):
        fitted.save(file.parent / "no" / "such" / "folder")


# --- forgery: the stamp is no secret ------------------------------------------------------------------


class Hostile:
    """Unpickling it would leave a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def test_pickles_are_never_executed(tmp_path: Path, small_net: nn.Module) -> None:
    marker, file = tmp_path / "ran", tmp_path / "hostile"
    evil = pickle.dumps(Hostile(marker))
    torch.save({"detector": Hostile(marker)}, tmp_path / "torch")
    for content in (evil, (tmp_path / "torch").read_bytes()):
        for written in (content, stamp(content + BLANK.encode())):
            file.write_bytes(written)
            with pytest.raises(InputError, match="is no detector"):
                ImageDetector.load(file, small_net)
    assert not marker.exists()


def opened(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a forger starts from: the header and the arrays of a true file."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["detector"]), load(content)


def forged(file: Path, about: object, arrays: dict[str, Tensor]) -> None:
    text = about if isinstance(about, str) else json.dumps(about)
    file.write_bytes(stamp(save(arrays, metadata={"detector": text, "stamp": BLANK})))
    assert is_intact(file.read_bytes())


def refused(file: Path, net: nn.Module) -> None:
    with pytest.raises(InputError, match=file.name):
        ImageDetector.load(file, net)


def test_a_forger_who_changes_nothing_is_believed(
    file: Path, small_net: nn.Module, fitted: ImageDetector
) -> None:
    forged(file, *opened(file))
    x = images(20, seed=2)
    assert np.array_equal(ImageDetector.load(file, small_net).p_values(x), fitted.p_values(x))


def test_headers_that_lack_something(file: Path, small_net: nn.Module) -> None:
    about, arrays = opened(file)
    for missing in about:
        forged(file, {name: one for name, one in about.items() if name != missing}, arrays)
        refused(file, small_net)
    for missing in arrays:
        forged(file, about, {name: one for name, one in arrays.items() if name != missing})
        refused(file, small_net)


LIES: list[tuple[str, Any]] = [
    ("format", 99), ("format", "1"), ("fpr", 2), ("fpr", "x"), ("fpr", float("nan")), ("budget", -1), ("budget", 10**9),
    ("seed", "a"), ("seed", 2**80), ("sample_shape", [10**6, 10**6]), ("sample_shape", [10**9] * 9), ("sample_shape", "abc"),
    ("sample_shape", [-1, 6, 6]), ("sample_shape", []), ("sample_shape", [3, 6, 6]), ("recipe", []), ("recipe", {"columns": ["log_odds"]}),
    ("contamination", -5), ("contamination", 10**6), ("contamination", 0.5), ("notes", 5), ("notes", [5]), ("model", 3),
    ("model", {"name": "x"}), ("more", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "lie"), LIES)
def test_headers_that_lie(name: str, lie: object, file: Path, small_net: nn.Module) -> None:
    about, arrays = opened(file)
    forged(file, about | {name: lie}, arrays)
    refused(file, small_net)


RECIPES: list[Callable[[dict[str, Any]], object]] = [
    lambda one: one["columns"].__setitem__(0, "no_such_column"),
    lambda one: one["columns"].append("energy"),
    lambda one: one["columns"].__setitem__(1, one["columns"][0]),
    lambda one: one["questions"].pop(),
    lambda one: one["questions"].append(dict(one["questions"][0])),
    lambda one: one["questions"][0].__setitem__("side", "up"),
    lambda one: one["questions"][0].__setitem__("weight", "much"),
    lambda one: one["questions"][0].__setitem__("columns", {"no_such_column": 1.0}),
    lambda one: one["questions"][0].__setitem__("given", ["no_such_column"]),
    lambda one: one["questions"][2].__setitem__("limit", 0.0),
    lambda one: one["questions"][2].__setitem__("limit", -4.0),
    lambda one: one["questions"][2].__setitem__("limit", float("nan")),
    lambda one: one["questions"][2].__setitem__("limit", "much"),
    lambda one: one["questions"][2].pop("limit"),
    lambda one: one.__setitem__("questions", []),
]


@pytest.mark.parametrize("which", range(len(RECIPES)))
def test_recipes_that_do_not_belong(which: int, file: Path, small_net: nn.Module) -> None:
    """A question too few would be believed only if its arrays were gone as well."""
    about, arrays = opened(file)
    RECIPES[which](about["recipe"])
    forged(file, about, arrays)
    refused(file, small_net)


@pytest.mark.parametrize(
    "text", ["", "[]", "5", "null", "{}", "[" * 100_000, '{"format": 1', '"\\ud800"', "{" * 5000]
)
def test_headers_that_are_none(text: str, file: Path, small_net: nn.Module) -> None:
    forged(file, text, opened(file)[1])
    refused(file, small_net)


ARRAYS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "calibration of NaN": lambda one: {"calibration": one["calibration"] * torch.nan},
    "calibration not in order": lambda one: {"calibration": one["calibration"].flip(0).contiguous()},
    "calibration of three": lambda one: {"calibration": one["calibration"][:3].clone()},
    "calibration of none": lambda one: {"calibration": one["calibration"][:0].clone()},
    "calibration in rows": lambda one: {"calibration": one["calibration"].view(2, -1)},
    "one curve": lambda one: {"scores.at": torch.zeros(1, 2, dtype=torch.float64)},
    "whole numbers": lambda one: {"scores.at": one["scores.at"].long()},
    "float32": lambda one: {"scores.at": one["scores.at"].float()},
    "curves of NaN": lambda one: {"scores.to": one["scores.to"] * torch.nan},
    "curves not in order": lambda one: {"scores.at": one["scores.at"].flip(1).contiguous()},
    "a number as curves": lambda one: {"scores.at": torch.tensor(1.0, dtype=torch.float64)},
    "a precision that is none": lambda one: {"answer3.precision": one["answer3.precision"][:2].clone()},
    "no locations": lambda one: {"locations": one["locations"][:, :1].clone()},
    "a number as locations": lambda one: {"locations": torch.tensor(1.0, dtype=torch.float64)},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_cannot_be(name: str, file: Path, small_net: nn.Module) -> None:
    about, arrays = opened(file)
    forged(file, about, arrays | ARRAYS[name](arrays))
    refused(file, small_net)


@pytest.mark.parametrize(
    ("name", "change"),
    [("means", lambda one: one[:, :2].clone()), ("means", lambda one: one * torch.nan), ("precision", lambda one: one[:2].clone()),
     ("means", None), ("kept", lambda one: one[:1].clone()), ("kept", lambda one: one[:, :3].clone()), ("kept", lambda one: one.long())],
)  # fmt: skip
def test_memories_that_cannot_be(
    name: str, change: Callable | None, small_net: nn.Module, tmp_path: Path
) -> None:
    file = tmp_path / "remembering"
    ImageDetector(small_net, **KINDS["memory"]).fit(images(120)).save(file)
    about, arrays = opened(file)
    which = next(one for one in arrays if one.startswith("reference.") and one.endswith(f".{name}"))
    if change is None:
        del arrays[which]
    else:
        arrays[which] = change(arrays[which])
    forged(file, about, arrays)
    refused(file, small_net)


def test_safetensors_headers_that_lie(file: Path, small_net: nn.Module) -> None:
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["stamp"] = BLANK
    text, rest = json.dumps(header).encode(), content[8 + length :]

    def written(size: int, lies: bytes) -> bytes:
        return stamp(struct.pack("<Q", size) + lies + rest)

    shifted = text.replace(b'"data_offsets": [0,', b'"data_offsets": [8,', 1)
    huge = text.replace(b'"shape": [1, 1]', b'"shape": [1000000, 1000000]', 1)
    assert text not in (shifted, huge)
    number = json.dumps({"__metadata__": 5, "stamp": BLANK}).encode()
    for forgery in (
        written(2**63 - 1, text), written(2**64 - 1, text), written(0, text), written(len(text) - 1, text),
        written(len(shifted), shifted), written(len(huge), huge), written(len(number), number), stamp(BLANK.encode()),
    ):  # fmt: skip
        file.write_bytes(forgery)
        refused(file, small_net)


def test_names_and_notes_may_hold_anything(
    fitted: ImageDetector, small_net: nn.Module, tmp_path: Path
) -> None:
    for name in (BLANK, "naïve \0 “ \n ' \" \\", "ж" * 5000, "", "uncanny-sha256:"):
        fitted.save(tmp_path / "one", model_name=name)
        assert about_detector(tmp_path / "one").model.name == name
        ImageDetector.load(tmp_path / "one", small_net)
