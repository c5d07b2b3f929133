"""Whose row is this? In worlds where the answer is known, no row is ever given to another example."""

import math
from collections.abc import Callable

import pytest
import torch
from jaxtyping import config
from torch import Tensor

from truth import SlowMatcher, Verdict, at_distances, directions, into_ball, judged, wander
from uncannyvalley import InputError
from uncannyvalley.matching import Fate, Matcher

Calls = list[tuple[Tensor, Tensor]]
SHAPES = [(1, 6, 6), (3, 32, 32)]


def calls_of(x: Tensor, seed: int, **options) -> Calls:
    calls: Calls = []
    wander(lambda rows, owners: calls.append((rows, owners)), x, seed, **options)
    return calls


def fates(matcher: Matcher, rows: Tensor) -> list[str]:
    return [Fate(one).name.lower() for one in matcher.match(rows).fate.tolist()]


# --- every row finds its example ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [0.02, 0.3, None], ids=["small ball", "large ball", "no ball"])
def test_walks_far_from_each_other_are_told_apart_without_exception(
    eps: float | None, norm: str, shape: tuple[int, ...]
) -> None:
    """The images are further apart than two walks can come together in twelve steps."""
    size = math.prod(shape)
    for seed in (0, 4, 7, 11):
        draw = torch.Generator().manual_seed(seed)
        x = at_distances(0.3, 1 + seed % 12, shape, draw)
        length = 0.3 / 12 / 12 * float(torch.rand(1, generator=draw))
        calls = calls_of(
            x,
            seed,
            step=length / (math.sqrt(size) if norm == "linf" else 1),
            eps=eps,
            norm=norm,
            restarts=False,
        )
        asked = sum(len(rows) for rows, _ in calls)
        assert judged(Matcher(x, eps, norm), calls) == Verdict(right=asked)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_anywhere_in_balls_that_do_not_meet(norm: str) -> None:
    for seed in range(5):
        draw = torch.Generator().manual_seed(seed)
        x = at_distances(1.0, 10, (1, 6, 6), draw)
        eps = 0.49 * min(
            torch.linalg.vector_norm((x[i] - x[j]).flatten(), math.inf if norm == "linf" else 2).item()
            for i in range(10)
            for j in range(i)
        )
        calls = calls_of(x, seed, step=eps / 3, eps=eps, norm=norm)
        assert judged(Matcher(x, eps, norm), calls) == Verdict(right=sum(len(rows) for rows, _ in calls))


@pytest.mark.parametrize("strict", [True, False])
def test_no_row_is_given_to_another_example_where_balls_overlap(strict: bool) -> None:
    """Steps up to a tenth of the gap, balls of up to 2.4 gaps, restarts anywhere: some rows stay apart."""
    total = Verdict()
    for seed in range(24):
        norm = ("linf", "l2")[seed % 2]
        draw = torch.Generator().manual_seed(seed)
        gap, radius, length = (0.2 + torch.rand(3, generator=draw)).tolist()
        x = at_distances(gap, 2 + seed % 9, (1, 6, 6), draw)
        scale = gap / (math.sqrt(36) if norm == "linf" else 1)
        calls = calls_of(x, seed, step=0.08 * length * scale, eps=2 * radius * scale, norm=norm)
        total += judged(Matcher(x, 2 * radius * scale, norm, strict=strict), calls)
    assert total.wrong == 0
    assert 0 < total.apart < 0.2 * total.right


@pytest.mark.parametrize("eps", [0.15, 0.4, None])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_judges_as_the_rule_says_row_by_row(norm: str, eps: float | None) -> None:
    """Steps as large as the gap, noise, rows outside of all balls, NaN: the fast rule is the slow one."""
    agreed = dict.fromkeys(Fate, 0)
    for seed in range(6):
        draw = torch.Generator().manual_seed(seed)
        x = at_distances(0.5, 6, (1, 6, 6), draw)
        calls = calls_of(x, seed, step=0.1, eps=None, norm="l2", rounds=6)
        calls[1:1] = [(torch.rand(4, 1, 6, 6, generator=draw), torch.full((4,), -1))]
        calls[3][0][0, 0, 2] = torch.nan
        matcher = Matcher(x, eps, norm)
        slow = SlowMatcher(x, eps, norm, matcher._far)
        assert matcher._far == pytest.approx(0.5, rel=1e-5)
        for rows, _ in calls:
            found = matcher.match(rows)
            owners, expected = slow.match(rows)
            assert found.owner.tolist() == owners
            assert found.fate.tolist() == expected
            for fate in expected:
                agreed[fate] += 1
    assert all(agreed[fate] for fate in Fate if fate != Fate.AMBIGUOUS)


# --- who cannot be told apart ------------------------------------------------------------------------


def pair(gap: float, shape: tuple[int, ...] = (1, 6, 6)) -> tuple[Tensor, Tensor]:
    """Two images, and three far from them; the direction from the first to the second."""
    draw = torch.Generator().manual_seed(5)
    x = at_distances(3.0, 5, shape, draw)
    across = directions(x[:1], "l2", draw)
    x[1] = x[0] + gap * across[0]
    return x, across


@pytest.mark.parametrize("eps", [0.1, None])
@pytest.mark.parametrize(
    "length",
    [
        0.0,
        0.02,
        0.04,
    ],
)
def test_rows_of_duplicates_are_ambiguous_and_move_nothing(length: float, eps: float | None) -> None:
    x, across = pair(0.0)
    matcher = Matcher(x, eps, "linf")
    for _ in range(2):
        found = matcher.match(x + length * across)
        assert found.owner.tolist() == [-1, -1, 2, 3, 4]
        assert found.fate.tolist() == [Fate.AMBIGUOUS] * 2 + [Fate.MATCHED] * 3
    assert torch.equal(matcher.last[:2], x[:2].flatten(1))


def test_near_images_whose_balls_overlap_are_told_apart_by_where_they_were_last() -> None:
    """The first walk goes past the middle: judged by the originals alone it would be the second's."""
    x, across = pair(0.5)
    matcher = Matcher(x, 1.0, "l2")
    for length in torch.linspace(0, 0.3, 13):
        assert matcher.match(x[:1] + length * across).owner.tolist() == [0]
    assert matcher.match(x[:1] + 0.3 * across).owner.tolist() == [0]
    assert matcher.match(x[1:2]).owner.tolist() == [1]


def test_a_restart_at_the_original_is_found_beside_another_walk() -> None:
    """The other walk has come nearer to it than the example's own last row is."""
    x, across = pair(0.5)
    away = directions(x[:1], "l2", torch.Generator().manual_seed(9))
    matcher = Matcher(x, None, "l2")
    for length in torch.linspace(0, 0.35, 8):
        assert matcher.match(x[:1] - length * across + 0.2 * length * away).owner.tolist() == [0]
    for length in torch.linspace(0, 0.35, 8):
        assert matcher.match(x[1:2] - length * across).owner.tolist() == [1]
    assert matcher.match(x[:1]).owner.tolist() == [0]


@pytest.mark.parametrize("eps", [1.0, None])
def test_walks_that_meet_head_on_are_ambiguous(eps: float | None) -> None:
    x, across = pair(0.5)
    matcher = Matcher(x, eps, "l2")
    for length in torch.linspace(0, 0.22, 12):
        rows = torch.cat([x[:1] + length * across, x[1:2] - length * across])
        assert matcher.match(rows).owner.tolist() == [0, 1]
    for _ in range(2):
        assert (
            matcher.match((x[:1] + 0.25 * across).expand(2, -1, -1, -1)).fate.tolist() == [Fate.AMBIGUOUS] * 2
        )


def crossing(clearance: float, step: float, eps: float | None) -> Verdict:
    """The first example walks to the second and past it, at ``clearance``; the second stays where it is."""
    x, across = pair(1.0)
    aside = torch.linalg.qr(torch.stack([across.flatten(), x[3].flatten()], dim=1)).Q[:, 1].view_as(across)
    path = [
        x[:1] + length * across + clearance * aside * min(1.0, 2 * float(length))
        for length in torch.arange(0, 1.8, step)
    ]
    calls = [(torch.cat([x[1:2], row]), torch.tensor([1, 0])) for row in path]
    return judged(Matcher(x, eps, "l2"), calls)


@pytest.mark.parametrize("eps", [2.0, None])
def test_a_walk_past_another_is_followed_where_its_step_is_small_beside_their_distance(
    eps: float | None,
) -> None:
    assert crossing(0.2, 0.05, eps).wrong == 0
    assert crossing(0.2, 0.05, eps).apart == 0


@pytest.mark.parametrize("eps", [2.0, None])
def test_a_walk_through_another_is_ambiguous_and_never_taken_for_it(eps: float | None) -> None:
    assert crossing(0.0, 0.1, eps).wrong == 0


def film(count: int, gap: float) -> Tensor:
    """Frames of a bright film: each ``gap`` (L2) from the one before, on a line."""
    draw = torch.Generator().manual_seed(3)
    across = directions(torch.zeros(1, 3, 64, 64), "l2", draw)
    return (
        0.6
        + 0.3 * torch.rand(1, 3, 64, 64, generator=draw)
        + gap * torch.arange(count).view(-1, 1, 1, 1) * across
    )


@pytest.mark.parametrize("eps", [0.1, None])
@pytest.mark.parametrize(("count", "gap"), [(4, 0.01), (12, 0.3)])
def test_frames_of_a_film_are_told_apart(count: int, gap: float, eps: float | None) -> None:
    frames = film(count, gap)
    assert judged(Matcher(frames, eps, "linf"), [(frames, torch.arange(count))]) == Verdict(right=count)


@pytest.mark.parametrize("eps", [0.1, None])
@pytest.mark.parametrize("gap", [1e-2, 1e-3])
def test_more_than_four_frames_closer_than_rounding_are_never_mixed_up(gap: float, eps: float | None) -> None:
    frames = film(12, gap)
    assert judged(Matcher(frames, eps, "linf"), [(frames, torch.arange(12))]).wrong == 0


# --- who belongs to nobody ---------------------------------------------------------------------------


def test_the_fates_of_rows_that_belong_to_no_example() -> None:
    x, across = pair(2.0)
    signs = across.sign()
    matcher = Matcher(x, 0.1, "linf")
    before = matcher.last.clone()
    rows = torch.cat(
        [x[2:3] + 0.101 * signs, x[2:3] + 0.5 * signs, torch.rand(2, 1, 6, 6), x[:1] * torch.nan, x[:1] / 0]
    )
    assert fates(matcher, rows) == ["unmatched"] * 4 + ["not_finite"] * 2
    assert torch.equal(matcher.last, before)
    found = matcher.match(x[2:3] + 0.1 * signs)
    assert found.owner.tolist() == [2]
    assert torch.equal(found.previous, before[2:3])


def test_the_edge_of_the_ball_is_that_of_float32() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(20, 3, 32, 32, generator=draw)
    for eps in (8 / 255, 0.3, 1e-3):
        matcher = Matcher(x, eps, "linf")
        corner = torch.clamp(x + 2 * eps * directions(x, "linf", draw), x - eps, x + eps).clamp(0, 1)
        assert (matcher.match(corner).owner == torch.arange(20)).all()
        beyond = into_ball(x + eps * directions(x, "linf", draw), x, eps, "linf")
        beyond[:, 0, 0, 0] = x[:, 0, 0, 0] + 1.01 * eps
        assert (matcher.match(beyond).fate == Fate.UNMATCHED).all()


def test_without_a_ball_what_is_further_off_than_the_next_image_is_nobodys() -> None:
    x = at_distances(0.5, 8, (1, 6, 6), torch.Generator().manual_seed(0))
    matcher = Matcher(x, None, "linf")
    away = directions(x, "l2", torch.Generator().manual_seed(1))
    assert fates(matcher, x + 0.51 * away) == ["unmatched"] * 8
    assert fates(matcher, torch.zeros(3, 1, 6, 6)) == ["unmatched"] * 3
    assert fates(matcher, x + 0.1 * away) == ["matched"] * 8


def test_outside_of_all_balls_a_lenient_matcher_goes_by_distance() -> None:
    x = at_distances(1.0, 4, (1, 6, 6), torch.Generator().manual_seed(0))
    away = directions(x, "l2", torch.Generator().manual_seed(1))
    rows = x + 0.3 * away
    assert (Matcher(x, 0.1, "l2").match(rows).fate == Fate.UNMATCHED).all()
    assert Matcher(x, 0.1, "l2", strict=False).match(rows).owner.tolist() == [0, 1, 2, 3]
    assert (Matcher(x, 0.1, "l2", strict=False).match(x + 1.5 * away).fate == Fate.UNMATCHED).all()


@pytest.mark.parametrize("eps", [0.3, None])
def test_a_single_image(eps: float | None) -> None:
    x = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    calls = calls_of(x, 0, step=0.05, eps=eps, norm="linf")
    matcher = Matcher(x, eps, "linf")
    assert judged(matcher, calls) == Verdict(right=sum(len(rows) for rows, _ in calls))
    assert fates(matcher, x + 0.5) == (["matched"] if eps is None else ["unmatched"])
    assert fates(matcher, x * torch.nan) == ["not_finite"]


def test_rows_of_one_call_follow_each_other() -> None:
    x = at_distances(0.5, 3, (1, 6, 6), torch.Generator().manual_seed(0))
    rows = x[[1, 0, 1, 1]] + 0.01 * torch.arange(4).view(-1, 1, 1, 1)
    matcher = Matcher(x, None, "linf")
    flat = rows.flatten(1)
    assert torch.equal(
        matcher.match(rows).previous, torch.stack([x[1].flatten(), x[0].flatten(), flat[0], flat[2]])
    )
    assert torch.equal(matcher.last, torch.stack([flat[1], flat[3], x[2].flatten()]))
    followed = matcher.follow(rows[:1], torch.tensor([2]))
    assert followed.owner.tolist() == [2]
    assert torch.equal(matcher.last[2], flat[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_number_types(dtype: torch.dtype) -> None:
    x = at_distances(0.5, 6, (1, 6, 6), torch.Generator().manual_seed(0))
    for seen in (Matcher(x, None, "linf").match(x.to(dtype)), Matcher(x.to(dtype), 0.05, "linf").match(x)):
        assert seen.owner.tolist() == list(range(6))


@pytest.mark.shared
@pytest.mark.parametrize("eps", [0.3, None])
def test_mnist_with_its_usual_ball(eps: float | None, shared) -> None:
    """Dark images with balls of 0.3 a pixel overlap without exception in linf; each row still finds its digit."""
    from uncannyvalley import data

    x = data.load(f"parquet:{shared}/data/mnist/test.parquet")[:40]
    calls = [
        (rows.clamp(0, 1), owners)
        for seed in range(1)
        for rows, owners in calls_of(x, seed, step=0.03, eps=0.3, norm="linf", rounds=20)
    ]
    found = judged(Matcher(x, eps, "linf"), calls)
    assert found.wrong == 0
    assert (
        found.apart <= (0.02 if eps else 0.2) * found.right
    )  # without a ball, restarts in its corners are doubtful


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x: Matcher(x, -0.1, "linf"), "eps must be a finite number above 0"),
        (lambda x: Matcher(x, math.nan, "linf"), "eps must be a finite number above 0"),
        (lambda x: Matcher(x, "8/255", "linf"), "eps must be a finite number above 0"),
        (lambda x: Matcher(x, 0.1, "l3"), "unknown norm 'l3'; did you mean 'l2'"),
    ],
)
def test_no_ball(make: Callable[[Tensor], Matcher], says: str) -> None:
    config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(InputError, match=says):
            make(torch.rand(2, 1, 6, 6))
    finally:
        config.update("jaxtyping_disable", False)
