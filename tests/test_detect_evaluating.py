"""``uncanny detect evaluate``: what it counts, writes, keeps, goes on with and refuses."""

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from detect_cases import CLEAN, fit_demo, run
from folders import uncanny
from uncannyvalley import ImageDetector, attacks, data, record, zoo
from uncannyvalley.analysis.diagnostics import Diagnostic
from uncannyvalley.cli.detecting import attacking, judging
from uncannyvalley.cli.detecting.attack_choices import QUICK, AttackChoice, chosen, request_of
from uncannyvalley.cli.detecting.attack_files import AttackFiles
from uncannyvalley.cli.detecting.attack_images import PART, NamedAttack, attack_images, ends_of, named_attacks
from uncannyvalley.cli.detecting.held_out import HeldOut, ImageSets, leaks
from uncannyvalley.cli.detecting.shifts import jpeg, shifted_images
from uncannyvalley.detect.evaluation.rates import Rate
from uncannyvalley.detect.evaluation.tramer import Claim
from uncannyvalley.splitting import split


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


@pytest.fixture(scope="module")
def evaluated(fitted: tuple[Path, dict], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("evaluated") / "evaluation"
    command = (
        "evaluate", fitted[0], "--skip", CLEAN, "--limit", "80", "--eps", "0.2", "--attack", "fgsm", "--attack", "pgd:steps=5",
        "--baseline", "gini", "--fit-data", "digits", "--fit-limit", CLEAN, "--known", "0.1=0.05", "--shift", "by hand=digits",
        "--out", out, "--json",
    )  # fmt: skip
    return out, json.loads(run(*command).stdout)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of PGD over all digits that are used here, each with kept images."""
    out = tmp_path_factory.mktemp("walked") / "run"
    command = (
        "record",
        "--eps",
        "0.2",
        "--steps",
        "4",
        "--limit",
        CLEAN + 40,
        "--keep-images",
        CLEAN + 40,
        "--no-controls",
    )
    uncanny(*map(str, command), "--out", out)
    return out


def test_kept_images_of_a_run_are_scored_by_role(fitted: tuple[Path, dict], walked: Path) -> None:
    groups = json.loads(run("score", fitted[0], walked, "--limit", "60", "--json").stdout)["groups"]
    found = {one["group"]: one["images"] for one in groups}
    assert found["all"] == 60
    assert {"clean", "ridge", "flip"} <= found.keys()
    assert found["clean"] <= found["all"] <= sum(count for name, count in found.items() if name != "all")


def test_a_run_takes_the_place_of_an_attack(
    fitted: tuple[Path, dict], walked: Path, tmp_path: Path, digits: tuple
) -> None:
    command = (
        "evaluate", fitted[0], "--run", walked, "--skip", CLEAN, "--turns", "0", "--out", tmp_path / "e", "--json",
    )  # fmt: skip
    printed = json.loads(run(*command).stdout)
    (attack,) = printed["detectors"]["this detector"]["attacks"]
    assert attack == "pgd (run)"
    assert printed["images"] == 40
    assert any("evaluated on 40 of" in one for one in printed["doubts"])
    moved = tmp_path / "moved.npz"
    np.savez(moved, x=digits[0].numpy()[::-1], y=digits[1].numpy()[::-1])
    refused = run(
        "evaluate", fitted[0], "--run", walked, "--data", f"npz:{moved}", "--out", tmp_path / "f", code=2
    )
    assert "recorded on other images" in refused.stderr


def test_evaluation_counts_what_the_detector_flags(
    evaluated: tuple[Path, dict], loaded: ImageDetector, digits: tuple
) -> None:
    printed = evaluated[1]
    assert (printed["images"], printed["right"]) == (80, 80)
    outcome = printed["detectors"]["this detector"]
    x, y = digits[0][CLEAN : CLEAN + 80], digits[1][CLEAN : CLEAN + 80]
    fast = NamedAttack("fgsm", attacks.fgsm(eps=0.2), 1, 0)
    pushed = ends_of(fast, loaded.model, x, y, 40, lambda done: None)
    fooled = loaded.model.logits_of(pushed).argmax(dim=1) != y
    fgsm = outcome["attacks"]["fgsm"]
    assert fgsm["counted"] == int(fooled.sum())
    assert fgsm["flagged"]["count"] == int((loaded.predict(pushed[fooled]) < 0).sum())
    assert outcome["clean"]["all"]["count"] == int((loaded.predict(x) < 0).sum())
    assert set(outcome["attacks"]) == {"fgsm", "pgd:steps=5"}
    assert set(outcome["controls"]) == {"noise", "assist"}
    assert {"JPEG 75", "blur 0.7 px"} <= outcome["shifts"].keys()
    assert outcome["shifts"]["by hand"] == outcome["clean"]
    assert [one["eps"] for one in outcome["claims"]] == [0.2]
    worst = printed["headline"]["this detector"]["worst_attack"]
    assert outcome["attacks"][worst]["flagged"]["value"] == min(
        one["flagged"]["value"] for one in outcome["attacks"].values()
    )
    assert set(printed["detectors"]) == {"this detector", "gini"}
    assert any("No attacker here knows" in one for one in printed["doubts"])
    assert not any("very scores" in one for one in printed["doubts"])


def test_evaluation_leaves_numbers_figure_and_page(evaluated: tuple[Path, dict]) -> None:
    out, printed = evaluated
    kept = json.loads((out / "evaluation.json").read_text())
    assert kept["detectors"] == printed["detectors"]
    assert Image.open(io.BytesIO((out / "roc.png").read_bytes())).size[0] > 1000
    page = (out / "report.html").read_text()
    for words in (
        "pgd:steps=5",
        "Beside baselines",
        "JPEG 75",
        "--attack fgsm",
        "uncanny detect evaluate",
        "No attacker here knows",
        "Gain in AUROC over baselines",
        ">at 1 %<",
        ">at 5 %<",
        "right or rejected %",
        "class by class",
        "At equal confidence and norm: AUROC",
        "against natural errors" if kept["right"] < kept["images"] else "against assist",
        "A supervised variant",
        "Cost of a decision",
        "What the result would imply",
        "by hand",
        "1 % of all images are attacked",
    ):
        assert words in page, words
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)  # works offline


def test_calibration_images_are_recognised(fitted: tuple[Path, dict], tmp_path: Path) -> None:
    shown = run(
        "evaluate", fitted[0], "--limit", "60", "--eps", "0.2", "--attack", "fgsm", "--out", tmp_path / "e"
    ).stdout
    assert "calibrated on them" in " ".join(shown.split())
    for words in (
        "The only attack is fgsm",
        "held-out clean images",
        "assist (control)",
        "No baselines",
        "A decision takes",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--attack", "pdg"], "did you mean 'pgd'"),
        (["--attack", "pgd", "--attack", "pgd"], "named twice"),
        (["--attack", "pgd:stepz=3"], "stepz"),
        (["--attack", "pgd:steps=x"], "whole number"),
        (["--suite", "large"], "unknown suite"),
        (["--baselines"], "--fit-data"),
        (["--baseline", "ginni", "--fit-data", "digits"], "did you mean 'gini'"),
        (["--skip", "600"], "leaves none"),
        (["--known", "much"], "--known"),
        (["--run", "nowhere"], "nowhere"),
        (["--shift", "digits"], "--shift takes name=value"),
        (["--shift", "trained=digits:train"], "in the same order"),
        (["--turns", "-1"], "turns"),
    ],
)
def test_mistakes_of_evaluate_are_named(
    fitted: tuple[Path, dict], options: list[str], words: str, tmp_path: Path
) -> None:
    ended = run("evaluate", fitted[0], "--skip", CLEAN, *options, "--out", tmp_path / "e", code=2)
    assert words in ended.stderr
    assert not (tmp_path / "e").exists()


def test_attacks_are_chosen_by_name_and_suite() -> None:
    assert chosen([], None) == QUICK
    assert chosen([], None, default=None) == ()
    assert chosen(["fgsm:eps=1/255"], None) == (AttackChoice("fgsm:eps=1/255", "fgsm", {"eps": "1/255"}),)
    assert len(chosen([], "standard")) == len({one.title for one in chosen([], "standard")}) > len(QUICK)
    options = {"norm": None, "eps": 0.1, "steps": 7, "seed": 0}
    quarter = next(one for one in QUICK if one.title == "pgd at eps/4")
    assert request_of(quarter, **options).eps == pytest.approx(0.025)
    assert request_of(quarter, **options).steps == 7
    assert request_of(AttackChoice.read("fgsm:eps=2/255"), **options).eps == pytest.approx(2 / 255)
    assert request_of(AttackChoice.read("fgsm"), **options).steps is None
    nearest = request_of(AttackChoice.read("deepfool"), **options)
    assert (nearest.eps, nearest.norm, nearest.steps) == (None, None, None)
    square = request_of(AttackChoice.read("square:queries=50"), **options)
    assert (square.eps, square.attack_arguments) == (0.1, {"queries": "50"})


def test_ends_are_those_of_the_recorded_walks(digits: tuple) -> None:
    model = split(zoo.load("demo"), digits[0][:8])
    x, y = digits[0][:30], digits[1][:30]
    for attack in (attacks.pgd(eps=0.2, step_size=0.05), attacks.early(eps=0.2, step_size=0.05)):
        told: list[int] = []
        ends = ends_of(NamedAttack("walk", attack, 6, 3), model, x, y, 16, told.append)
        walk = record(model, x, y, attack, steps=6, seed=3, batch_size=16, measures=["margin"])
        margins = walk.column("margin")
        last = margins[np.arange(30), (~np.isnan(margins)).sum(axis=1) - 1]
        logits = model.logits_of(ends).double()
        own = logits.gather(1, y[:, None])[:, 0]
        others = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
        np.testing.assert_allclose((own - others).numpy(), last, atol=1e-3)
        assert sum(told) == 30
        assert len(told) > 2 * 5  # it is told step by step, not batch by batch


def test_attacked_images_are_made_once(digits: tuple, tmp_path: Path) -> None:
    model = split(zoo.load("demo"), digits[0][:8])
    x, y = digits[0][: PART + 10], digits[1][: PART + 10]
    settings = {"norm": None, "eps": 0.2, "steps": 3, "seed": 0}
    files = AttackFiles(tmp_path / "attacked", {"weights": "these"})

    def made(files: AttackFiles, images: torch.Tensor = x, **more: float) -> tuple[torch.Tensor, int]:
        forwards: list[int] = []
        hook = model.module.register_forward_hook(
            lambda module, inputs, output: forwards.append(len(inputs[0]))
        )
        named = named_attacks([AttackChoice("pgd", "pgd")], model, **{**settings, **more})
        found = attack_images(named, model, images, y, batch_size=128, files=files)["pgd"]
        hook.remove()
        return found, sum(forwards)

    whole = len(x) * (3 + 1)
    first, passed = made(files)
    assert passed == whole
    again, passed = made(files)
    assert passed == 0
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    for other in ({"eps": 0.1}, {"steps": 3, "seed": 1}, {"images": 1 - x}):
        assert made(files, **other)[1] == whole
    assert made(AttackFiles(files.folder, {"weights": "others"}))[1] == whole
    kept = sorted(files.folder.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    kept[0].unlink()  # as if it had been stopped in between
    kept[1].write_bytes(kept[1].read_bytes()[:-40])
    torch.testing.assert_close(made(files)[0], first, rtol=0, atol=0)
    assert made(files)[1] == 0


def test_a_stopped_evaluation_goes_on(
    fitted: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (
        "evaluate", fitted[0], "--skip", CLEAN, "--limit", "51", "--eps", "0.2", "--attack", "fgsm", "--attack", "pgd:steps=4",
        "--turns", "0", "--out", tmp_path / "e", "--json",
    )  # fmt: skip
    from uncannyvalley.cli.detecting import attack_images as module

    walked, begun = module._walked, []

    def stopped(named: NamedAttack, *rest: object) -> torch.Tensor:
        begun.append(named.title)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return walked(named, *rest)

    monkeypatch.setattr(module, "_walked", stopped)
    ended = run(*command, code=130)
    assert "the same command goes on" in ended.stderr
    assert not list((tmp_path / "e").glob("*.*"))
    assert begun == ["fgsm", "fgsm", "pgd:steps=4", "pgd:steps=4"]
    run(*command)
    assert begun[4:] == ["pgd:steps=4", "noise", "noise", "assist", "assist"]
    run(*command)
    assert len(begun) == 9
    assert (tmp_path / "e" / "evaluation.json").is_file()


def test_everyday_changes_stay_images(digits: tuple) -> None:
    x = digits[0][:6]
    shifts = shifted_images(x)
    assert all(one.shape == x.shape and one.min() >= 0 and one.max() <= 1 for one in shifts.values())
    assert all((one - x).abs().max() > 0 for one in shifts.values())
    torch.testing.assert_close(shifts["brightness × 0.8"], 0.8 * x)
    torch.testing.assert_close(shifted_images(x, seed=0)["noise 0.04"], shifts["noise 0.04"])
    colour = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert (jpeg(colour, 100) - colour).abs().mean() < (jpeg(colour, 30) - colour).abs().mean()
    assert set(shifted_images(torch.rand(4, 7))) == {"noise 0.04", "brightness × 0.8", "brightness × 1.2"}


def test_attackers_who_know_are_one_more_attack_and_are_kept(
    loaded: ImageDetector, digits: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    doubt = Diagnostic("more steps still help", 0.5, 0.1, True, "The search had not ended.")

    def attacked(detector: ImageDetector, x: torch.Tensor, *rest: object, **more: object) -> SimpleNamespace:
        asked.append(len(x))
        return SimpleNamespace(headline=SimpleNamespace(images=1 - x, diagnostics=[doubt]))

    monkeypatch.setattr(attacking, "run_attackers", attacked)
    monkeypatch.setattr(judging, "MOST_KNOWN", 8)
    files = AttackFiles(tmp_path, {})
    settings = {"norm": None, "eps": 0.2, "steps": None, "seed": 0}

    def added(count: int, wanted: bool = True) -> tuple[ImageSets, list[str]]:
        x, y = digits[0][:count], digits[1][:count]
        sets = ImageSets({}, {}, {}, {})
        held = HeldOut(x, y, (), {}, {}, {}, [])
        return sets, judging.add_adaptive(loaded, held, sets, settings, files, wanted=wanted, quiet=True)

    for _ in range(2):  # the second time from its file
        sets, notes = added(12)
        (images,) = sets.attacks.values()
        torch.testing.assert_close(images[:8], 1 - digits[0][:8], rtol=0, atol=0)
        torch.testing.assert_close(images[8:], digits[0][8:12], rtol=0, atol=0)
        assert sets.radii == {}  # what was not attacked would count as robust
        assert "the first 8 of 12" in notes[0]
        assert str(doubt) in notes[1]
    assert asked == [8]
    assert added(8)[0].radii == {judging.ADAPTIVE: 0.2}
    assert asked == [8]
    sets, notes = added(8, wanted=False)
    assert sets.attacks == {}
    assert "No attacker here knows" in notes[0]


def test_scores_that_many_clean_images_share_are_no_leak(loaded: ImageDetector, digits: tuple) -> None:
    def told(first: int, last: int) -> list[str]:
        held = HeldOut(digits[0][first:last], digits[1][first:last], (), {}, {}, {}, [])
        return leaks(loaded, held)

    assert told(CLEAN, 540) == []
    (note,) = told(0, CLEAN)
    assert int(note.split()[0]) > 0.4 * CLEAN  # half of them are calibration images


def test_networks_that_are_hardly_ever_right_and_better_baselines_are_said() -> None:
    def found(right: int, *claims: Claim, **others: tuple[float, float]) -> SimpleNamespace:
        rates = {judging.NAME: (0.5, 0.9), **others}
        outcomes = {
            name: SimpleNamespace(claims=claims, headline={"worst_flagged": Rate.of(int(100 * worst), 100), "mean_auroc": area})
            for name, (worst, area) in rates.items()
        }  # fmt: skip
        return SimpleNamespace(images=100, right=right, detectors=outcomes)

    assert judging.doubts_of(found(50, gini=(0.5, 0.9))) == []
    assert "only 49 of the 100" in judging.doubts_of(found(49))[0]
    claim = Claim(0.2, ("pgd",), Rate.of(90, 100), 0.1, 0.3, True)
    assert "not to be believed" in judging.doubts_of(found(90, claim))[0]
    assert judging.doubts_of(found(90, gini=(0.6, 0.8), margin=(0.6, 0.95))) == [
        "better than this detector in its own worst attack: gini, margin",
        "better than this detector in mean AUROC: margin",
    ]
