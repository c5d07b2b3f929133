"""The rules of studies/claims.py: every verdict can come out, printed tables are read, and short claims run whole."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import uncannyvalley as uv
from uncannyvalley.analysis.summary import Figure
from uncannyvalley.errors import InputError
from uncannyvalley.trajectory import trajectory_schema

sys.path.append(str(Path(__file__).resolve().parents[1] / "studies"))

from claims import (
    approximating,
    architectures,
    attackers,
    bounding,
    printed,
    queries,
    regularising,
    robust,
    suffix,
    thresholds,
    valley,
)
from claims.asked import CLAIMS
from claims.trained import VARIANTS, Mixed, Smoothed
from claims.verdicts import Criterion, Outcome, Part, Verdict, combined, point, share, share_of
from claims.walks import Pattern, World, pattern, titled

STUDIES = Path(__file__).resolve().parents[1] / "studies"

HOLDS, PARTLY, FAILS, OPEN = Verdict


@pytest.fixture(scope="module")
def world(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(shared, tmp_path_factory.mktemp("claims"), images=40, quick=True)


# rules


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.6, 0.9, HOLDS, FAILS),
        (0.1, 0.4, FAILS, HOLDS),
        (0.4, 0.6, OPEN, OPEN),
        (0.5, 0.5, OPEN, OPEN),
        (math.nan, math.nan, OPEN, OPEN),
        (math.inf, math.inf, HOLDS, FAILS),
    ],
)
def test_a_criterion_asks_for_the_whole_interval(
    low: float, high: float, above: Verdict, below: Verdict
) -> None:
    figure = Figure((low + high) / 2, low, high)
    assert Criterion("x", "above", 0.5).judge(figure).verdict == above
    assert Criterion("x", "below", 0.5).judge(figure).verdict == below


def part(verdict: Verdict, counts: bool = True) -> Part:
    return Part("x", "rule", point(1), verdict, counts)


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        ([HOLDS, HOLDS], HOLDS),
        ([HOLDS, FAILS], PARTLY),
        ([HOLDS, OPEN], PARTLY),
        ([FAILS, FAILS], FAILS),
        ([FAILS, OPEN], FAILS),
        ([OPEN, OPEN], OPEN),
        ([], OPEN),
    ],
)
def test_parts_make_the_verdict(verdicts: list[Verdict], whole: Verdict) -> None:
    assert combined([part(one) for one in verdicts]) == whole
    beside = [part(one, counts=False) for one in (HOLDS, FAILS)]
    assert combined([*(part(one) for one in verdicts), *beside]) == whole


def test_shares_have_wilson_intervals() -> None:
    none, all_of, some = share_of(0, 10), share_of(10, 10), share(np.array([True] * 50 + [False] * 50))
    assert (none.low, all_of.high) == pytest.approx((0, 1))
    assert none.high == pytest.approx(0.2775, abs=1e-4)
    assert (some.low, some.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert math.isnan(share(np.array([], dtype=bool)).value)
    with pytest.raises(InputError, match="share is of 0 to 3"):
        share_of(4, 3)


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='lies "above" or "below"'):
        Criterion("x", "beside", 1.0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one image"):
        World(tmp_path, tmp_path, images=0)


# the pattern


def walk_of(sharpness: list[list[float]], wrong: list[list[bool]]) -> uv.Trajectory:
    examples, rows = np.shape(sharpness)
    names = {"log_relative_sharpness": ("log", 1), "distance_linf": ("pixels", 1)}
    values = {
        "run": pa.array(["made"] * (examples * rows)).dictionary_encode(),
        "example": np.repeat(np.arange(examples), rows),
        "restart": np.zeros(examples * rows, dtype=np.int32),
        "step": np.tile(np.arange(rows), examples),
        "label": np.zeros(examples * rows, dtype=np.int32),
        "predicted": np.ravel(wrong).astype(np.int32),
        "adversarial": np.ravel(wrong),
        "log_relative_sharpness": np.ravel(sharpness),
        "distance_linf": np.tile(np.arange(rows) / 255, examples),
    }
    schema = trajectory_schema(names, {"attack": "made", "rows": rows, "restarts": 1})
    return uv.Trajectory(pa.table([pa.array(values[one.name], one.type) for one in schema], schema=schema))


@pytest.fixture(scope="module")
def made() -> uv.Trajectory:
    """Up and down; down alone; up alone; no flip, down; back to the right label at the end; wrong from the start."""
    nan, no, yes = math.nan, False, True
    return walk_of(
        [[0, 2, 3, -1], [0, 0.1, -1, -2], [0, 1, 2, 2], [0, -1, -2, -3], [0, 1, -1, -2], [5, 9, 1, 0], [0, 2, -1, nan]],
        [[no, no, yes, yes], [no, no, yes, yes], [no, no, yes, yes], [no] * 4, [no, yes, yes, no], [yes] * 4,
         [no, yes, yes, no]],
    )  # fmt: skip


def test_the_pattern_is_read_image_by_image(made: uv.Trajectory) -> None:
    one = pattern(made)
    assert one.flipped.tolist() == [True, True, True, False, True, True]
    assert one.doubles.tolist() == [True, False, True, False, True, True]
    assert one.valley.tolist() == [True, True, False, False, False, True]
    assert one.whole.tolist() == [True, False, False, False, False, True]
    assert one.rise.tolist() == [3, 0.1, 2, 0, 1, 2]
    assert valley.at_flip(one).all()
    assert not valley.at_flip(replace(one, ridge=one.ridge + 3)).any()


def test_the_valley_is_entered_at_a_distance(made: uv.Trajectory) -> None:
    assert robust.entry(made).tolist() == [3, 2, math.inf, math.inf, 2, 2]
    near, far = np.full(50, 3.0), np.full(50, math.inf)
    assert robust.MOVED.judge(robust.moved(far, near)).verdict == HOLDS
    assert robust.MOVED.judge(robust.moved(near + 1, near)).verdict == HOLDS
    assert robust.MOVED.judge(robust.moved(near - 1, near)).verdict == FAILS


def test_walks_of_other_settings_have_other_names() -> None:
    names = {titled(uv.attacks.pgd(eps=eps, step_size=0.1)) for eps in (0.1, 0.2)}
    assert len(names) == 2


# single claims on made outcomes


def patterned(rise: float, fall: float, flipped: bool = True, count: int = 40) -> Pattern:
    flags = np.full(count, flipped)
    return Pattern(np.full(count, rise), np.full(count, fall), flags, flags, np.ones(count), np.ones(count))


def test_attacks_and_noise_are_judged_apart() -> None:
    walks = {
        "PGD": patterned(2, 2),
        "noise": patterned(0, 0, flipped=False),
        "assist": patterned(0, 5, flipped=False),
    }
    parts = attackers.judged(walks)
    assert [one.verdict for one in parts] == [HOLDS, HOLDS, HOLDS, FAILS]
    assert combined(parts) == HOLDS  # assist stands beside
    assert combined(attackers.judged({"PGD": patterned(2, -2), "noise": patterned(2, 2)})) == PARTLY
    assert combined(attackers.judged({"FGSM": patterned(0, 0), "noise": patterned(2, 2)})) == FAILS


@pytest.mark.parametrize(("parameters", "chats"), [(260_032, True), (8_000_000_000, False), (260_032, False)])
def test_a_small_or_raw_language_model_settles_nothing(parameters: int, chats: bool) -> None:
    suffixes, images = np.linspace(0, 1, 30), np.linspace(40, 42, 30)
    assert suffix.weaker(suffixes, images, parameters, chats).verdict == OPEN
    assert suffix.weaker(suffixes, images, 8_000_000_000, True).verdict == HOLDS
    assert suffix.weaker(images, suffixes, 8_000_000_000, True).verdict == FAILS


def test_thresholds_and_their_accuracy() -> None:
    clean, sharp = np.linspace(0, 1, 100), np.linspace(2, 3, 100)
    above, below = thresholds.best_threshold(clean, sharp), thresholds.best_threshold(sharp, clean)
    assert (above.sign, below.sign) == (-1, 1)
    told = (~above.finds(clean), above.finds(sharp))
    assert thresholds.LEARNED.judge(thresholds.accuracy([told])).verdict == HOLDS
    blind = thresholds.clean_threshold(clean)  # looks for flat points alone
    assert (~blind.finds(clean)).mean() == pytest.approx(0.95)
    told_blind = (~blind.finds(clean), blind.finds(sharp))
    assert thresholds.CLEAN_ONLY.judge(thresholds.accuracy([told_blind])).verdict == FAILS
    assert thresholds.MORE.judge(thresholds.accuracy([told, told_blind], (1, -1))).verdict == HOLDS
    assert thresholds.MORE.judge(thresholds.accuracy([told, told], (1, -1))).verdict == OPEN


def test_equal_values_are_paired_once() -> None:
    assert bounding.matched(np.array([1.0, 1.1, 9.0]), np.array([1.05, 1.2, 5.0])) == [(0, 0), (1, 1)]
    assert bounding.matched(np.array([1.0]), np.array([])) == []


def test_around_an_image_nothing_changes_there_and_a_quarter_beside(small_net: torch.nn.Module) -> None:
    x = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    slow = bounding.Around(small_net, x, 0.25)
    assert torch.equal(slow(x), small_net(x))
    assert torch.allclose(slow(x + 0.4), small_net(x + 0.1), atol=1e-6)


def test_seeds_are_drawn_with_their_images() -> None:
    ours = [np.full(20, value) for value in (1.0, 2.0, 3.0)]
    same = [np.full(20, 0.0)] * 3
    found = regularising.difference(ours, same)
    assert found.value == 2
    assert found.low <= 1.34
    assert found.high >= 2.66


def test_flatness_that_brings_no_robustness_fails() -> None:
    def all_of(verdict: Verdict) -> list[Part]:
        return [part(verdict)] * 4

    for flatter, sturdier, expected in (
        (HOLDS, HOLDS, HOLDS),
        (FAILS, FAILS, HOLDS),
        (HOLDS, FAILS, FAILS),
        (HOLDS, OPEN, FAILS),
    ):
        figure = regularising.follows(all_of(flatter), all_of(sturdier))
        assert regularising.FOLLOWS.judge(figure).verdict == expected


def test_smoothing_and_mixing_are_what_they_say(small_net: torch.nn.Module) -> None:
    from uncannyvalley.train.live import LiveNetwork

    class Half:
        def uniform(self, shape: torch.Size) -> torch.Tensor:
            return torch.full((3, *shape), 0.5)

    live = LiveNetwork(small_net, "7")
    x = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2])
    log_p = small_net(x).log_softmax(1)
    smoothed = -(0.9 * log_p[range(3), y] + 0.1 * log_p.mean(dim=1)).mean()
    assert torch.isclose(Smoothed(0.1)(live, x, y, Half()).total, smoothed)  # type: ignore[arg-type]
    mixed = small_net((x + x.roll(1, 0)) / 2).log_softmax(1)
    expected = -(mixed[range(3), y] + mixed[range(3), y.roll(1)]).mean() / 2
    assert torch.isclose(Mixed()(live, x, y, Half()).total, expected)  # type: ignore[arg-type]
    assert "plain" in VARIANTS


# printed tables


def test_printed_walks_are_read() -> None:
    rows = {(one.network, one.attack): one for one in printed.breadth()}
    vgg = rows["vgg11-bn, width ¼", "pgd"]
    assert (vgg.right, vgg.valley, vgg.height, vgg.depth) == (38, 1.0, 1.18, 3.49)
    assert {network for network, _ in rows} >= set(architectures.FAMILIES)
    verdicts = [one.verdict for one in architectures.judged_in_print("ViT", rows["ViT (MNIST)", "pgd"])]
    assert verdicts == [HOLDS, OPEN]
    with pytest.raises(InputError, match=r"no walk was found in studies/breadth\.txt"):
        printed.breadth("nothing of the kind")


def test_printed_intervals_and_attacks_are_read() -> None:
    moved, still = robust.printed_digits()
    assert (moved.figure.value, moved.verdict) == (0.24, HOLDS)
    assert (still.figure.value, still.verdict) == (0.42, FAILS)
    assert queries.in_print("nes") == pytest.approx((50, 0.694, 0.41))
    text = printed.text_of(printed.TRAINING)
    for row, heading in (("nobody", robust.WALKS), ("erm", "no such table")):
        with pytest.raises(InputError, match="the printed table has no"):
            printed.interval_in(text, "=== digits", heading, row, 0)
    with pytest.raises(InputError, match="cannot be read"):
        printed.text_of("studies/nothing.txt")
    with pytest.raises(InputError, match="no line of the attack"):
        queries.in_print("nobody")


def test_printed_approximations_are_judged_by_cost_and_error() -> None:
    found = approximating.rows(printed.text_of(printed.CURVATURE))
    assert {one.kind for one in found} == set("abcd")
    assert all(
        one.cost <= approximating.CHEAP for kind in "abcd" if (one := approximating.best_cheap(found, kind))
    )
    dear = [approximating.Row("a", "x", "all", 0.0, 0.0, 0.9)]
    assert approximating.judged(dear, "a").verdict == FAILS
    assert approximating.judged([replace(dear[0], cost=0.1)], "a").verdict == HOLDS
    assert approximating.judged([replace(dear[0], cost=0.1, most=0.2)], "a").verdict == FAILS
    with pytest.raises(InputError, match="no table of approximations"):
        approximating.rows("")


# whole claims


@pytest.mark.shared
def test_a_claim_of_all_words_is_exact(world: World, shared: Path) -> None:
    pytest.importorskip("transformers")
    from uncannyvalley import llm, measures

    model = llm.load_language_model(str(shared / "models" / "stories260k"), device="cpu")
    probe = model.probe(model.tokenizer("Once upon a time, there was a cat")["input_ids"])
    exact = measures.available()["log_relative_sharpness"](probe)
    assert torch.allclose(approximating.top_words(probe, model.vocabulary), exact, atol=1e-6)
    few = approximating.top_words(probe, 4)
    assert not torch.allclose(few, exact, atol=1e-2)


@pytest.mark.shared
def test_the_study_runs_whole_and_twice_alike(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNCANNY_QUICK", "1")
    study = load_study()
    arguments = [
        "--shared",
        str(world.shared),
        "--cache",
        str(world.cache),
        "--images",
        "40",
        "--only",
        "1",
        "3",
    ]
    for name in ("first", "second"):
        study.main([*arguments, "--out", str(tmp_path / name)])
    printed_text = capsys.readouterr().out
    assert "verdict: HOLDS " in printed_text
    first, second = (tmp_path / name for name in ("first", "second"))
    for file in ("claims_1.png", "claims_3.png", "claims.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()
    told = json.loads((first / "claims.json").read_text())
    assert told["1"]["verdict"] == HOLDS
    assert told["3"]["verdict"] == PARTLY  # FGSM ends on the ridge
    assert {one["source"] for one in told["1"]["parts"]} == {"measured"}


def load_study():  # type: ignore[no-untyped-def]
    import importlib.util

    spec = importlib.util.spec_from_file_location("study_of_claims", STUDIES / "claims.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_unknown_claims_are_named() -> None:
    study = load_study()
    assert [one.key for one in study.chosen(["7", "1"])] == ["1", "7"]
    assert len(study.chosen(None)) == len(CLAIMS) == 11
    with pytest.raises(InputError, match="unknown claim '9'"):
        study.chosen(["9"])


def test_json_has_no_number_that_is_none() -> None:
    study = load_study()
    bad = Part("<script>alert(1)</script>", "rule", Figure(math.inf, math.nan, math.inf), OPEN)
    told = json.loads(study.plain({"1": Outcome([bad], "short", [], lambda path: None)}))
    assert told["1"]["parts"][0]["value"] is None
    assert told["1"]["parts"][0]["text"] == "<script>alert(1)</script>"
