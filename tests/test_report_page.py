"""The page of recorded runs: its numbers are those of the trajectory, whatever the run, and no name in it is markup."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as made_arrays

import uncannyvalley as uv
from folders import uncanny
from pages import Reader, numbers_of, values_of, without_scripts
from uncannyvalley.errors import InputError
from uncannyvalley.report.page_numbers.packing import TYPES, pack, unpack
from uncannyvalley.report.page_numbers.payload import payload_text
from uncannyvalley.report.page_numbers.pictures import SIDE, amplified, picture_numbers
from uncannyvalley.report.pages.report_page import page_of_run, render
from uncannyvalley.report.pages.run_section import Room
from uncannyvalley.run.folder import RunFolder, open_run

RECORD = ("record", "--eps", "0.4", "--step-size", "0.04", "--steps", "10")

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 digits with kept logits, and the images of 12."""
    out = tmp_path_factory.mktemp("page") / "run"
    uncanny(*RECORD, "--limit", "40", "--keep", "logits", "--keep-images", "12", "--out", out)
    return out


@pytest.fixture(scope="module")
def run(folder: Path) -> RunFolder:
    return open_run(folder)


@pytest.fixture(scope="module")
def numbers(folder: Path) -> dict:
    return numbers_of(folder / "report.html")["runs"][0]


# --- packing ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.sampled_from(TYPES).flatmap(
        lambda name: made_arrays.arrays(
            np.dtype(name), made_arrays.array_shapes(min_dims=1, max_dims=3, min_side=0)
        )
    )
)
def test_packed_numbers_come_back_to_the_bit(values: np.ndarray) -> None:
    packed = json.loads(json.dumps(pack(values)))
    found = unpack(packed)
    assert found.dtype == values.dtype
    assert found.shape == values.shape
    assert found.tobytes() == values.tobytes()
    assert pack(found) == packed


def test_what_cannot_be_packed_or_unpacked_is_said() -> None:
    with pytest.raises(InputError, match="arrays of int64 cannot be packed"):
        pack(np.arange(3))
    packed = pack(np.arange(3, dtype=np.float32))
    for damage in ({"data": packed["data"][:-8]}, {"shape": [4]}, {"dtype": "float33"}, {"data": "%%%"}):
        with pytest.raises(InputError, match="cannot be read"):
            unpack({**packed, **damage})


def test_text_for_a_script_element_holds_nothing_that_ends_it() -> None:
    names = [HOSTILE, "<!--", "]]>", "a&b", "\u2028", 'quote"']
    text = payload_text({"names": names})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["names"] == names
    with pytest.raises(ValueError, match="JSON compliant"):
        payload_text({"value": math.nan})


# --- the numbers of a run ---------------------------------------------------------------------------


def test_every_value_is_the_recorded_one(run: RunFolder, numbers: dict) -> None:
    walk = run.trajectory
    assert numbers["steps"] == list(range(11))
    names = {name: name for name in numbers["values"]} | {"distance": "distance_linf"}
    assert set(names) == {
        "log_relative_sharpness", "loss", "confidence", "log_gini", "feature_norm", "log_geometry", "distance", "predicted",
    }  # fmt: skip
    for name, measure in names.items():
        np.testing.assert_array_equal(values_of(numbers, name), walk.column(measure).astype(np.float32), name)
        assert name == "predicted" or numbers["measures"][name]["unit"] == walk.unit(measure)


def test_every_example_has_its_phases(run: RunFolder, numbers: dict) -> None:
    found = uv.phases(run.trajectory)
    of = {name: unpack(one) for name, one in numbers["per_example"].items()}
    np.testing.assert_array_equal(of["id"], found.example)
    np.testing.assert_array_equal(of["label"], found.label)
    for name in ("flip", "ridge", "valley"):
        steps = found.column(f"{name}_step")
        np.testing.assert_array_equal(of[name], np.where(np.isnan(steps), -1, steps))
    np.testing.assert_array_equal(of["height"], found.ridge_height.astype(np.float32))
    np.testing.assert_array_equal(of["depth"], found.depth.astype(np.float32))
    assert of["correct"].tolist() == (found.flip_step != 0).astype(int).tolist()
    assert numbers["count"] == len(found) == 40


def test_curves_are_medians_and_bands_of_images_that_were_right(run: RunFolder, numbers: dict) -> None:
    assert [(one["name"], one["role"]) for one in numbers["walks"]] == [
        ("pgd", "attack"), ("noise", "control"), ("assist", "control"),
    ]  # fmt: skip
    walks = {"pgd": run.trajectory, **run.controls()}
    for one in numbers["walks"]:
        right = walks[one["name"]].column("adversarial")[:, 0] == 0
        for measure, drawn in one["curves"].items():
            band = np.percentile(walks[one["name"]].column(measure)[right], [10, 50, 90], axis=0)
            for name, expected in zip(("low", "median", "high"), band, strict=True):
                np.testing.assert_allclose(drawn[name], expected, rtol=1e-5, atol=1e-30)
    total, *parts = (np.array(numbers["shares"][name]) for name in ("total", "gini", "norm", "geometry"))
    np.testing.assert_allclose(sum(parts), total, atol=2e-5)
    marks = uv.phases(run.trajectory).own_summary
    assert numbers["marks"] == {
        "ridge": marks.ridge_step.value, "flip": marks.flip_step.value, "valley": marks.valley_step.value,
    }  # fmt: skip


def test_kept_logits_are_carried_with_what_the_head_decides(run: RunFolder, numbers: dict) -> None:
    replay = {name: unpack(one) for name, one in numbers["replay"].items() if isinstance(one, dict)}
    table = run.trajectory.table
    kept = np.array(table["logits"].to_pylist(), np.float32).reshape(40, 11, 10)
    np.testing.assert_array_equal(replay["logits"], kept)
    weight = run.head().weight.double().numpy()
    apart = np.square(weight[:, None] - weight[None]).sum(axis=2) / 2
    off = ~np.eye(10, dtype=bool)
    np.testing.assert_allclose(replay["log_pair"][off], np.log(apart[off]), rtol=1e-12)
    assert np.all(replay["log_pair"][~off] == -np.inf)
    np.testing.assert_allclose(
        replay["log_feature_norm"], np.log(run.trajectory.column("feature_norm")), rtol=1e-6
    )
    assert numbers["replay_note"] is None


def test_replayed_examples_are_as_many_as_fit(run: RunFolder) -> None:
    room = Room(logits=10_000)
    page = page_of_run(run, room=room)
    one = page.payload["runs"][0]
    logits = one["replay"]["logits"]
    count = logits["shape"][0]
    assert 1 <= count < 40
    assert len(logits["data"]) <= room.logits
    assert f"first {count} of 40 examples" in one["replay_note"]
    assert one["replay_note"] in page.sections[0].notes


# --- pictures ---------------------------------------------------------------------------------------


def test_pictures_are_the_kept_pixels(run: RunFolder, numbers: dict) -> None:
    import base64
    import io

    from PIL import Image

    kept, shown = run.images(), numbers["pictures"]
    assert (shown["width"], shown["height"], shown["reduced"], shown["left_out"]) == (8, 8, False, 0)
    assert len(shown["items"]) == sum(map(len, kept.values()))
    for one in shown["items"]:
        roles, pixels = kept[one["example"]][one["step"]]
        assert one["roles"] == roles
        image = Image.open(io.BytesIO(base64.b64decode(one["uri"].partition(",")[2])))
        np.testing.assert_allclose(np.asarray(image) / 255, pixels[0].clip(0, 1), atol=0.5 / 255 + 1e-6)
    assert {one["example"] for one in shown["perturbations"]} <= set(kept)
    step, factor, grey = amplified(kept[0]) or (0, 0.0, np.zeros(0))
    assert step == max(step for step, (roles, _) in kept[0].items() if roles)
    np.testing.assert_allclose((grey - 0.5) / factor, kept[0][step][1] - kept[0][0][1], atol=1e-6)


def test_large_pictures_are_reduced_and_marked_steps_come_first() -> None:
    drawn = np.random.default_rng(0)
    steps = {0: ["clean"], 1: [], 2: ["ridge", "flip"], 3: []}
    kept = {7: {step: (roles, drawn.random((3, 150, 120))) for step, roles in steps.items()}}
    whole = picture_numbers(kept)
    assert whole is not None
    assert whole["reduced"]
    assert [one["step"] for one in whole["items"]] == [0, 1, 2, 3]
    assert all(one["uri"].startswith("data:image/jpeg;") for one in whole["items"])
    marked = sum(len(one["uri"]) for one in whole["items"] if one["roles"]) + len(
        whole["perturbations"][0]["uri"]
    )
    tight = picture_numbers(kept, marked)
    assert tight is not None
    assert [one["step"] for one in tight["items"]] == [0, 2]
    assert tight["left_out"] == 2
    assert SIDE < 150
    assert picture_numbers({}) is None


# --- the page ---------------------------------------------------------------------------------------


def test_the_same_run_is_the_same_page(run: RunFolder, folder: Path) -> None:
    again = render(page_of_run(open_run(folder)))
    assert again == (folder / "report.html").read_text(encoding="utf-8")


def test_hostile_names_of_classes_and_data_stay_text(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(folder, copied)
    renamed = open_run(copied)
    manifest = renamed.manifest(0)
    manifest.provenance[-1]["class_names"] = [HOSTILE, "<!--", "\u2028"]
    manifest.provenance[-1]["device"] = HOSTILE
    manifest.write(copied / "manifest.json")
    page = render(page_of_run(renamed))
    assert "alert(1)</script>" not in page
    assert numbers_of(page)["runs"][0]["class_names"] == [HOSTILE, "<!--", "\u2028"]
    seen = Reader(without_scripts(page))
    assert "script" not in seen.tags
    assert HOSTILE in seen.text


def test_a_page_without_images_has_all_else(run: RunFolder) -> None:
    page = page_of_run(run, room=Room(images=False))
    assert page.payload["runs"][0]["pictures"] is None
    assert "data:image/png" not in without_scripts(render(page)).partition("<body>")[2]


def test_a_thousand_examples_stay_small(tmp_path: Path) -> None:
    """1 000 examples in 41 rows with logits and 64 examples with images; ten classes."""
    out = tmp_path / "run"
    uncanny(
        "record", "--eps", "0.4", "--step-size", "0.02", "--steps", "40", "--data", "digits:train", "--limit", "1000",
        "--no-controls", "--keep", "logits", "--measures", "log_relative_sharpness,log_gini,feature_norm,log_geometry,loss,confidence", "--out", out,
    )  # fmt: skip
    numbers = numbers_of(out / "report.html")["runs"][0]
    assert numbers["replay"]["logits"]["shape"] == [1000, 41, 10]
    assert len({one["example"] for one in numbers["pictures"]["items"]}) == 64
    assert (out / "report.html").stat().st_size <= 6e6
