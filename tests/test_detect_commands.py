"""``uncanny detect``: fit, score, recalibrate, attack; what they print, write and refuse; the guide."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from detect_cases import CLEAN, fit_demo, run
from folders import NETWORK
from uncannyvalley import ImageDetector, data, zoo
from uncannyvalley.cli.detecting.networks import NetworkName
from uncannyvalley.errors import InputError

DOCUMENTATION = Path(__file__).resolve().parents[1] / "docs" / "detection.md"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A detector's file, and what fitting it printed."""
    place = tmp_path_factory.mktemp("detector") / "new" / "demo.detector"
    return place, fit_demo(place)


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images = data.load("digits")
    return images[:], images.labels


@pytest.fixture(scope="module")
def loaded(fitted: tuple[Path, dict]) -> ImageDetector:
    return ImageDetector.load(fitted[0], zoo.load("demo"))


def test_fit_promises_what_the_calibration_says(fitted: tuple[Path, dict], digits: tuple) -> None:
    place, printed = fitted
    detector = ImageDetector(zoo.load("demo"), budget=4).fit(digits[0][:CLEAN])
    assert printed["threshold"] == pytest.approx(detector.threshold, rel=1e-4)
    assert printed["rate_interval"] == pytest.approx(detector.calibration.interval())
    assert (printed["forwards"], printed["backwards"]) == (detector.forwards, 0)
    assert printed["calibration_images"] == CLEAN // 2
    assert "at most 5 % are flagged on average" in printed["promise"]
    assert "not trained on" in printed["promise"]
    assert any("not used" in note and "mirror" in note for note in printed["notes"])
    assert printed["model"] == "demo"
    assert place.is_file()


def test_fit_says_the_same_in_words(tmp_path: Path) -> None:
    shown = run(
        "fit",
        "--limit",
        "120",
        "--calibration",
        "digits:train",
        "--calibration-limit",
        "100",
        "--out",
        tmp_path / "d",
    ).stdout
    for words in ("100 calibration images", "1 forward and 0 backwards a decision", "jointly", "log_norm"):
        assert words in " ".join(shown.split())


def test_a_file_is_replaced_only_when_asked(tmp_path: Path) -> None:
    place = tmp_path / "d"
    place.write_text("precious")
    assert "--overwrite" in run("fit", "--limit", "120", "--out", place, code=2).stderr
    assert place.read_text() == "precious"
    run("fit", "--limit", "120", "--out", place, "--overwrite")
    assert ImageDetector.load(place, zoo.load("demo")).fpr == 0.05


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "60"], "needs 100"),
        (["--limit", "60", "--calibration", "digits:train", "--calibration-limit", "10"], "at least 19"),
        (["--limit", "120", "--fpr", "5"], "between 0 and 1"),
        (["--limit", "120", "--budget", "0"], "budget"),
        (["--limit", "120", "--calibration-limit", "50"], "goes with --calibration"),
        (["--data", "digit"], "did you mean 'digits'"),
    ],
)
def test_mistakes_of_fit_are_named(options: list[str], words: str, tmp_path: Path) -> None:
    ended = run("fit", *options, "--out", tmp_path / "d", code=2)
    assert words in ended.stderr
    assert not (tmp_path / "d").exists()


def test_scores_are_those_of_the_detector(
    fitted: tuple[Path, dict], loaded: ImageDetector, digits: tuple, tmp_path: Path
) -> None:
    x = digits[0][CLEAN : CLEAN + 90]
    out = tmp_path / "new" / "scores.parquet"
    printed = json.loads(
        run("score", fitted[0], "--skip", CLEAN, "--limit", "90", "--out", out, "--top", "4", "--json").stdout
    )
    table = pq.read_table(out)
    assert table["row"].to_pylist() == list(range(CLEAN, CLEAN + 90))
    np.testing.assert_allclose(table["p_value"].to_numpy(), loaded.p_values(x), atol=0.02)
    np.testing.assert_allclose(table["score"].to_numpy(), loaded.score_samples(x), rtol=1e-3, atol=1e-4)
    explained = loaded.explain(x)
    for question, nats in explained.items():
        np.testing.assert_allclose(table[question].to_numpy(), nats, rtol=1e-3, atol=1e-4)
    (everything,) = printed["groups"]
    assert everything["flagged"] == table["flagged"].to_numpy().sum() == (loaded.predict(x) < 0).sum()
    low, high = everything["interval"]
    assert low <= everything["share"] <= high
    assert printed["expected_if_clean"] == list(loaded.calibration.expected_flags(90))
    top = printed["most_suspicious"]
    assert [one["row"] - CLEAN for one in top] == np.argsort(table["score"].to_numpy(), kind="stable")[
        :4
    ].tolist()
    first = top[0]
    assert first["question"] == max(explained, key=lambda name: explained[name][first["row"] - CLEAN])


def test_a_folder_of_image_files_is_scored(
    fitted: tuple[Path, dict], loaded: ImageDetector, digits: tuple, tmp_path: Path
) -> None:
    pixels = (digits[0][CLEAN : CLEAN + 5] * 255).round().to(torch.uint8)
    for i, one in enumerate(pixels):
        Image.fromarray(one[0].numpy()).save(tmp_path / f"{i}.png")
    rows = json.loads(run("score", fitted[0], tmp_path, "--json").stdout)["most_suspicious"]
    expected = loaded.score_samples(pixels.float() / 255)
    assert {one["file"]: pytest.approx(one["score"], rel=1e-3, abs=1e-4) for one in rows} == {
        f"{i}.png": value for i, value in enumerate(expected)
    }
    Image.new("RGB", (8, 8)).save(tmp_path / "colour.png")
    for i in range(5):
        (tmp_path / f"{i}.png").unlink()
    assert "(3, 8, 8)" in run("score", fitted[0], tmp_path, code=2).stderr
    (tmp_path / "colour.png").unlink()
    (tmp_path / "seven").mkdir()
    Image.fromarray(pixels[0][0].numpy()).save(tmp_path / "seven" / "a.png")
    assert (
        json.loads(run("score", fitted[0], tmp_path, "--json").stdout)["most_suspicious"][0]["file"]
        == "seven/a.png"
    )
    (tmp_path / "seven" / "a.png").unlink()
    (tmp_path / "seven").rmdir()
    assert "holds no images" in run("score", fitted[0], tmp_path, code=2).stderr


def test_the_network_of_a_python_file_is_never_run_unasked(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        NETWORK + "\nimport pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
    )
    name, place = f"{tmp_path / 'net.py'}:build", tmp_path / "d"
    run("fit", "--model", name, "--limit", "120", "--out", place)
    (tmp_path / "ran").unlink()
    refused = run("score", place, code=2)
    assert f"--model {name}" in refused.stderr
    assert not (tmp_path / "ran").exists()
    run("score", place, "--model", name, "--limit", "5")
    assert (tmp_path / "ran").exists()
    assert "another network" in run("score", place, "--model", "demo", code=2).stderr


def test_a_detector_saved_without_a_name_asks_for_its_network(digits: tuple, tmp_path: Path) -> None:
    ImageDetector(zoo.load("demo")).fit(digits[0][:120]).save(tmp_path / "d")
    assert "give it with --model" in run("score", tmp_path / "d", code=2).stderr
    run("score", tmp_path / "d", "--model", "demo", "--limit", "5")
    assert "name it with --model" in run("score", tmp_path / "d", "--weights", "w.pt", code=2).stderr


def test_names_of_networks_are_read_back() -> None:
    name = NetworkName("a file.py:build", {"width": "64", "text": "a = 'b c'"}, "w s.safetensors")
    assert NetworkName.read(name.text) == name
    assert NetworkName.read("demo") == NetworkName("demo")
    for text in ("", "demo --other x", "demo --weights", "'demo"):
        with pytest.raises(InputError, match="cannot be read"):
            NetworkName.read(text)


def test_attackers_beat_the_detector_and_are_counted(
    fitted: tuple[Path, dict], loaded: ImageDetector, tmp_path: Path, digits: tuple
) -> None:
    command = (
        "attack", fitted[0], "--skip", CLEAN, "--limit", "12", "--eps", "0.3", "--steps", "12", "--attacker", "feature matching",
        "--attacker", "noise", "--no-doubt", "--out", tmp_path / "new" / "table.json",
    )  # fmt: skip
    printed = json.loads(run(*command, "--json").stdout)
    assert json.loads((tmp_path / "new" / "table.json").read_text())["rows"] == printed["rows"]
    x, y = digits[0][CLEAN : CLEAN + 12], digits[1][CLEAN : CLEAN + 12]
    right = (loaded.model.logits_of(x).argmax(dim=1) == y).numpy()
    assert printed["attacked"] == int((right & (loaded.predict(x) > 0)).sum())
    found = {one["attacker"]: one["success"]["count"] for one in printed["rows"]}
    assert found.keys() == {"feature matching", "noise"}
    assert found["feature matching"] > found["noise"]
    assert printed["settings"]["eps"] == 0.3
    shown = run(*command).stdout
    assert "12 images are attacked" in shown
    assert "not that no attacker can" in shown


def test_recalibration_writes_another_file(fitted: tuple[Path, dict], digits: tuple, tmp_path: Path) -> None:
    before, out = fitted[0].read_bytes(), tmp_path / "new" / "own.detector"
    command = (
        "recalibrate",
        fitted[0],
        "digits",
        "--skip",
        CLEAN,
        "--limit",
        "200",
        "--contamination",
        "0.05",
    )
    printed = json.loads(run(*command, "--out", out, "--json").stdout)
    assert fitted[0].read_bytes() == before
    x = digits[0][CLEAN : CLEAN + 200]
    expected = ImageDetector.load(fitted[0], zoo.load("demo")).recalibrate(x, 0.05)
    found = ImageDetector.load(out, zoo.load("demo"))
    assert found.threshold == pytest.approx(expected.threshold, rel=1e-4)
    assert printed["threshold"] == pytest.approx(found.threshold, rel=1e-4)
    assert (printed["calibration_images"], printed["contamination"]) == (200, 10)
    assert printed["threshold_before"] == pytest.approx(fitted[1]["threshold"], rel=1e-4)
    assert printed["flagged"]["now"] == (found.predict(x) < 0).sum()
    assert found.notes[0].startswith("recalibrated on 200 images of digits")
    assert all(one.startswith("before it was recalibrated: ") for one in found.notes[1:])
    assert "--overwrite" in run(*command, "--out", out, code=2).stderr
    shown = " ".join(run(*command, "--out", out, "--overwrite").stdout.split())
    for words in ("of which at most 10 are not clean", "detection pays for it", "before"):
        assert words in shown
    run("score", out, "--limit", "5")  # it still finds its network by itself


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--contamination", "1"], "below 1"),
        (["--contamination", "0.01", "--limit", "10"], "at least 19"),
        (["--contamination", "-0.1"], "at least 0"),
    ],
)
def test_mistakes_of_recalibration_are_named(
    fitted: tuple[Path, dict], options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageDetector, "columns", None)  # refused before anything is read
    ended = run("recalibrate", fitted[0], "digits", *options, "--out", tmp_path / "d", code=2)
    assert words in ended.stderr
    assert not (tmp_path / "d").exists()


def test_mistakes_of_attack_are_named(fitted: tuple[Path, dict], tmp_path: Path) -> None:
    for options, words in (
        (["--attacker", "squares"], "did you mean 'square'"),
        (["--norm", "l7"], "unknown norm"),
        (["--eps", "big"], "8/255"),
    ):
        assert words in run("attack", fitted[0], "--limit", "3", *options, code=2).stderr
    assert "cannot be read" in run("attack", tmp_path / "none", code=2).stderr


def test_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 4
    detector, unseen = names["detector"], names["unseen"]
    assert isinstance(detector, ImageDetector)
    assert isinstance(unseen, torch.Tensor)
    low, high = detector.calibration.interval()
    assert low < 0.05 < high
    assert detector.calibration.contamination == 2
    assert len(names["answers"]) == len(unseen) - CLEAN  # type: ignore[arg-type]
