"""The watcher of foreign attacks: rows of a known world in their places, true outputs, and nothing left behind."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn

import uncannyvalley as uv
from truth import (
    Noted,
    Scene,
    assert_holds_exactly,
    close,
    counted,
    directions,
    measured_afresh,
    pgd,
    wander,
)  # fmt: skip
from uncannyvalley import InputError, query_rows
from uncannyvalley.types import Measure

NAMES = ["log_relative_sharpness", "margin", "loss", "distance_linf", "distance_l2", "log_third_order"]


@pytest.fixture
def scene(small_net: nn.Module, small_images: tuple[Tensor, Tensor]) -> Scene:
    return small_net, *small_images


# --- rows in their places ----------------------------------------------------------------------------


@pytest.mark.parametrize(("eps", "norm"), [(0.05, "linf"), (0.3, "l2"), (None, "linf")])
def test_every_row_of_a_known_world_is_in_its_place(eps: float | None, norm: str, scene: Scene) -> None:
    net, x, y = scene
    ids = [100 - 7 * i for i in range(12)]
    for seed in range(2):
        with uv.observe(net, x, y, NAMES, eps=eps, norm=norm, ids=ids) as walk:
            noted = Noted(walk.model)
            wander(noted, x, seed, step=0.01, eps=0.05 if eps is None else eps, norm=norm)
        assert counted(walk, matched=sum(map(len, noted.rows)))
        assert_holds_exactly(walk.trajectory, noted, net, x, y, NAMES, ids)
        assert walk.trajectory.ids == tuple(ids)
        assert len(walk.apart) == 0


def test_rows_of_nobody_are_kept_apart_and_shift_no_query_number(scene: Scene) -> None:
    net, x, y = scene
    ids = list(range(50, 62))
    draw = torch.Generator().manual_seed(0)
    with uv.observe(net, x, y, NAMES, eps=0.05, ids=ids) as walk:
        noted = Noted(walk.model)
        noted(x, torch.arange(12))
        rows = torch.cat(
            [x[3:5] + 0.01, torch.rand(2, 1, 6, 6, generator=draw), x[:1] * torch.nan, x[7:8] + 0.06, x[3:4]]
        )
        rows[-1, 0, 0, 0] = torch.inf
        noted(rows, torch.tensor([3, 4, -1, -1, -1, -1, -1]))
        noted(x[[4, 3]] + 0.02, torch.tensor([4, 3]))
    assert counted(walk, matched=16, unmatched=3, not_finite=2)
    assert (walk.queries, walk.ambiguous, walk.unmatched, walk.not_finite) == (21, 0, 3, 2)
    apart = walk.apart
    assert apart["call"].to_pylist() == [1] * 5
    assert apart["row"].to_pylist() == [2, 3, 4, 5, 6]
    assert apart["fate"].to_pylist() == ["unmatched", "unmatched", "not_finite", "unmatched", "not_finite"]
    assert_holds_exactly(walk.trajectory, noted, net, x, y, NAMES, ids)
    assert walk.trajectory.about["queries"] == walk.fates
    assert np.isnan(walk.trajectory.column("loss")[0, 1:]).all()
    assert walk.trajectory.column("loss").shape == (12, 3)


def test_duplicates_are_ambiguous_and_the_others_are_not(scene: Scene) -> None:
    net, x, y = scene
    x[5] = x[2]
    with uv.observe(net, x, y, NAMES, eps=0.05) as walk:
        noted = Noted(walk.model)
        noted(x + 0.01, torch.tensor([0, 1, -1, 3, 4, -1, *range(6, 12)]))
    assert counted(walk, matched=10, ambiguous=2)
    assert set(walk.apart["nearest"].to_pylist()) <= {2, 5}
    assert_holds_exactly(walk.trajectory, noted, net, x, y, NAMES)


def test_duplicates_asked_as_they_are(scene: Scene) -> None:
    net, x, y = scene
    x[5] = x[2]
    with uv.observe(net, x, y, eps=0.05) as walk:
        walk.model(x)
    assert counted(walk, matched=10, ambiguous=2)


class AnySize(nn.Module):
    """Images of any height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.convolution(x).relu().mean(dim=(2, 3)))


def test_rows_of_another_shape_are_unmatched(scene: Scene) -> None:
    net, (x, y) = AnySize().eval(), scene[1:]
    with uv.observe(net, x, y, eps=0.05) as walk:
        walk.model(x)
        walk.model(torch.rand(3, 1, 9, 9))
        walk.model(x[:2])
    assert counted(walk, matched=14, unmatched=3)
    assert np.isfinite(walk.trajectory.column("loss")).sum(axis=1).tolist() == [2, 2, *[1] * 10]


def test_rows_of_another_shape_are_in_the_table_of_rows_apart(scene: Scene) -> None:
    net, (x, y) = AnySize().eval(), scene[1:]
    with uv.observe(net, x, y, eps=0.05) as walk:
        walk.model(torch.rand(3, 1, 9, 9))
    assert len(walk.apart) == walk.unmatched == 3


class Holes(nn.Module):
    """Its logits are NaN where the first pixel is nearly black."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return self.head(torch.where(flat[:, :1] < 0.01, torch.nan, flat))


def test_rows_with_nan_logits_count_as_not_finite(scene: Scene) -> None:
    x, y = scene[1].clamp(0.05, 0.1), scene[2]
    with uv.observe(Holes().eval(), x, y, eps=0.2) as walk:
        walk.model(x)
        rows = x.clone()
        rows[4, 0, 0, 0] = 0
        walk.model(rows)
    assert counted(walk, matched=23, not_finite=1)
    assert walk.apart.select(["call", "row", "fate", "nearest"]).to_pylist() == [
        {"call": 1, "row": 4, "fate": "not_finite", "nearest": 4}
    ]
    assert np.isnan(walk.trajectory.column("loss")).sum() == 1


def test_a_small_buffer_gives_the_same_table(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, y = scene
    tables = []
    for size in (query_rows.BUFFER_ELEMENTS, 100, 1):
        monkeypatch.setattr(query_rows, "BUFFER_ELEMENTS", size)
        with uv.observe(net, x, y, eps=0.05) as walk:
            wander(Noted(walk.model), x, 4, step=0.01, eps=0.05, norm="linf", rounds=4)
        tables.append(walk.trajectory.table)
    assert tables[0].column_names == tables[1].column_names == tables[2].column_names
    for name in tables[0].column_names[1:]:
        first, *others = (table[name].to_numpy().astype(float) for table in tables)
        for other in others:
            close(other, first, name)


# --- measures ----------------------------------------------------------------------------------------


def test_measures_that_cost_passes_are_those_of_record(scene: Scene) -> None:
    """record() starting at the queried points has the same numbers in its first row."""
    net, x, y = scene
    names = [
        "log_relative_sharpness",
        "input_gradient_norm",
        "log_trace@3",
        "log_relative_sharpness@0",
        "log_third_order",
    ]
    points = (x + 0.04 * directions(x, "linf", torch.Generator().manual_seed(0))).clamp(0, 1)
    with uv.observe(net, x, y, names, eps=0.05) as walk, torch.no_grad():
        walk.model(points[torch.arange(11, -1, -1)])
    once = uv.attacks.pgd(eps=0.01, step_size=0.01)
    expected = uv.record(net, points, y, once, steps=1, measures=names)
    for name in names:
        close(walk.trajectory.column(name)[:, 0], expected.column(name)[:, 0], name)
        assert walk.trajectory.unit(name) == expected.unit(name)


def test_a_measure_of_the_users_and_one_of_the_step_itself(scene: Scene) -> None:
    """``previous`` is the example's last query, its original at the first."""
    net, x, y = scene

    def moved(probe: uv.Probe) -> Tensor:
        return (probe.x - probe.previous).flatten(1).norm(dim=1)

    with uv.observe(net, x, y, [Measure("moved", "pixels", 0, moved)]) as walk:
        for length in (0.0, 0.01, 0.04):
            walk.model((x + length)[torch.randperm(12)])
    found = walk.trajectory.column("moved")
    np.testing.assert_allclose(found, np.tile([0.0, 0.06, 0.18], (12, 1)), atol=1e-6)
    assert walk.trajectory.measures[-1] == "moved"


def test_by_default_no_pass_is_added(scene: Scene) -> None:
    net, x, y = scene
    with uv.observe(net, x, y) as walk:
        passes = []
        walk.model.network[0].register_forward_hook(lambda *_: passes.append(1))
        pgd(walk.model, x, y, steps=3)
        _ = walk.trajectory
    assert len(passes) == 3
    assert "log_relative_sharpness" in walk.trajectory.measures
    assert "input_gradient_norm" not in walk.trajectory.measures


# --- the walk as a whole ------------------------------------------------------------------------------


def test_the_rows_so_far_can_be_read_before_the_end_and_none_comes_after_it(scene: Scene) -> None:
    net, x, y = scene
    with uv.observe(net, x, y, ["loss"], eps=0.1) as walk:
        walk.model(x)
        assert walk.trajectory.rows == 1
        walk.model(x[:1])
        assert walk.trajectory.rows == 2
    out = walk.model(x)
    assert torch.equal(out, net(x))
    assert counted(walk, matched=13)
    assert walk.trajectory.table.equals(walk.trajectory.table)


def test_two_restarts_and_the_clean_and_final_images_asked_for(scene: Scene) -> None:
    net, x, y = scene
    draw = torch.Generator().manual_seed(0)
    with uv.observe(net, x, y, ["loss"], eps=0.1, name="mine") as walk:
        walk.ask(x)
        for _ in range(2):
            start = (x + 0.1 * directions(x, "linf", draw)).clamp(0, 1)
            last = pgd(walk.model, x, y, steps=3, start=start)
        walk.ask(last)
    found = walk.trajectory
    assert counted(walk, matched=12 * 8)
    assert (found.attack, found.rows, found.is_observed) == ("mine", 8, True)
    np.testing.assert_array_equal(found.column("distance_linf")[:, 0], 0)
    close(found.column("loss")[:, -1], measured_afresh(net, last, x, y, ["loss"])["loss"], "loss")


def test_what_is_asked_is_told_and_not_matched(scene: Scene) -> None:
    """Also images that the matcher would take for others, or for nobody's."""
    net, x, y = scene
    with uv.observe(net, x, y, ["loss"], eps=0.01) as walk:
        walk.ask(x.flip(0))
        walk.ask(1 - x)
    assert counted(walk, matched=24)
    close(
        walk.trajectory.column("loss")[:, 0], measured_afresh(net, x.flip(0), x, y, ["loss"])["loss"], "loss"
    )


def test_phases_of_a_watched_walk(scene: Scene) -> None:
    net, x, _ = scene
    y = net(x).argmax(dim=1)
    with uv.observe(net, x, y, eps=0.3) as walk:
        walk.ask(x)
        walk.ask(pgd(walk.model, x, y, eps=0.3, steps=8))
    found, trajectory = uv.phases(walk.trajectory), walk.trajectory
    assert len(found) == 12
    wrong = trajectory.column("adversarial") == 1
    expected = np.where(wrong.any(axis=1), wrong.argmax(axis=1), -1)
    assert (expected > 0).any()
    flips = [-1 if one is None else one for one in found.table["flip_step"].to_pylist()]
    np.testing.assert_array_equal(flips, expected)


# --- the best so far ----------------------------------------------------------------------------------


def naive_best(trajectory: uv.Trajectory, by: str) -> dict[tuple[int, int], dict]:
    """Row by row in the order of queries."""
    best: dict[int, dict] = {}
    accepted = {}
    for row in sorted(trajectory.table.to_pylist(), key=lambda row: row["step"]):
        score = row[by] if by == "margin" or row["adversarial"] else float("inf")
        kept = best.get(row["example"])
        if kept is None or score < kept["score"]:
            best[row["example"]] = row | {"score": score}
        accepted[row["example"], row["step"]] = best[row["example"]] | {"step": row["step"]}
    return accepted


@pytest.mark.parametrize("by", ["margin", "distance_linf", "distance_l2"])
def test_accepted_rows_are_the_best_so_far(by: str, scene: Scene) -> None:
    net, x, _ = scene
    y = net(x).argmax(dim=1)
    y[:2] = (y[:2] + 1) % 4  # misclassified from the start
    with uv.observe(net, x, y, NAMES, norm="l2") as walk:
        walk.ask(x)
        wander(Noted(walk.model), x, 3, step=0.6, eps=1.0, norm="l2", rounds=20)
    found = walk.trajectory
    assert 0.1 < np.nanmean(found.column("adversarial")) < 0.9
    expected = naive_best(found, by)
    accepted = found.accepted(by).table.to_pylist()
    assert len(accepted) == len(expected) == len(found.table)
    for row in accepted:
        wanted = expected[row["example"], row["step"]]
        assert row == {name: wanted[name] for name in row}
    assert found.accepted(by).about == found.about | {"accepted_by": by}


def test_an_unknown_criterion(scene: Scene) -> None:
    net, x, y = scene
    with uv.observe(net, x, y, ["loss", "margin"]) as walk:
        walk.model(x)
    with pytest.raises(InputError, match="unknown criterion 'margn'; did you mean 'margin'"):
        walk.trajectory.accepted("margn")


# --- errors -------------------------------------------------------------------------------------------


@pytest.fixture
def _as_users_run_it():
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


MISTAKES: list[tuple[Callable, str]] = [
    (lambda net, x, y: uv.observe(net, x, y + 4), "classes 0 to 3, got values from"),
    (lambda net, x, y: uv.observe(net, x, y.float()), r"int64 tensor of class numbers, got torch\.float32"),
    (lambda net, x, y: uv.observe(net, x, y[:5]), "one class for each of the 12 images"),
    (lambda net, x, y: uv.observe(net, x * torch.nan, y), "NaN or infinite values in 12 of 12 images"),
    (lambda net, x, y: uv.observe(net, x * 255, y), r"must lie in \[0, 1\]"),
    (lambda net, x, y: uv.observe(net, x[:0], y[:0]), "x is empty"),
    (lambda net, x, y: uv.observe(net, x, y, eps=-0.1), "eps must be a finite number above 0"),
    (lambda net, x, y: uv.observe(net, x, y, eps=0), "eps must be a finite number above 0"),
    (lambda net, x, y: uv.observe(net, x, y, eps="8/255"), "eps must be a finite number above 0"),
    (lambda net, x, y: uv.observe(net, x, y, norm="l1"), "unknown norm 'l1'; did you mean 'l2'"),
    (lambda net, x, y: uv.observe(net.train(), x, y), r"training mode .* call model\.eval"),
    (lambda net, x, y: uv.observe(net, x, y, ids=[1, 2]), "ids must name each of the 12"),
    (lambda net, x, y: uv.observe(net, x, y, ids=[1] * 12), "ids must be distinct"),
    (lambda net, x, y: uv.observe(net, x, y, "loss"), "measures is a list of names"),
    (lambda net, x, y: uv.observe(net, x, y, ["los"]), "did you mean 'loss'"),
    (lambda net, x, y: uv.observe(net, x, y, ["log_trace@nowhere"]), "nowhere"),
    (lambda net, x, y: uv.observe(lambda x: x, x, y), "torch.nn.Module"),
    (lambda net, x, y: uv.observe(net, x, y).trajectory, "the attack never called walk.model"),
]  # fmt: skip


@pytest.mark.usefixtures("_as_users_run_it")
@pytest.mark.parametrize(
    ("call", "says"), MISTAKES, ids=[f"{i}-{says[:20]}" for i, (_, says) in enumerate(MISTAKES)]
)
def test_mistakes(call: Callable, says: str, scene: Scene) -> None:
    with pytest.raises(InputError, match=says):
        call(*scene)


@pytest.mark.usefixtures("_as_users_run_it")
def test_mistakes_in_the_block_and_after_it(scene: Scene) -> None:
    net, x, y = scene
    with uv.observe(net, x, y, eps=0.01) as walk:
        with pytest.raises(InputError, match=r"one row for each image, \(12, 1, 6, 6\); got \(3, 1, 6, 6\)"):
            walk.ask(x[:3])
        walk.model((x + 0.5) % 1)
    with pytest.raises(InputError, match=r"none of 12 queries could be matched .* 12 unmatched"):
        _ = walk.trajectory
    with pytest.raises(InputError, match="the observation is closed"):
        walk.ask(x)
