"""Prompts as means over their targets' tokens: against the Hessian of the mean loss, and in words."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hessian

import uncannyvalley as uv
from made import made
from made_tokens import made_head, made_prompts, read_tokens, token_walks
from uncannyvalley import InputError
from uncannyvalley.analysis.comparison import compare_runs
from uncannyvalley.analysis.diagnostics import Diagnostic
from uncannyvalley.analysis.reading import reading
from uncannyvalley.analysis.walked import Walked
from uncannyvalley.token_means import RULES
from uncannyvalley.trajectory import Trajectory

DRAWN = torch.Generator().manual_seed(5)
FEATURES = torch.randn(2, 3, 4, 4, generator=DRAWN, dtype=torch.float64)
LABELS = torch.randint(0, 7, (2, 3, 4), generator=DRAWN)


@pytest.fixture(scope="module")
def walks() -> Trajectory:
    """Two prompts, three steps, four target tokens, with the measures of real features."""
    return read_tokens(made_head(), FEATURES, LABELS)


def mean_loss(weight: Tensor, bias: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(features @ weight.T + bias, labels)


def test_a_prompt_has_the_hessian_of_its_mean_loss(walks: Trajectory) -> None:
    """Every measure that speaks of the loss as a whole, from the materialised Hessian and gradient by autograd."""
    prompts, head = walks.prompts(), made_head()
    weight, bias = head.weight, head.bias
    for example, step in np.ndindex(2, 3):
        features, labels = FEATURES[example, step], LABELS[example, step]
        second = hessian(lambda rows, f=features, y=labels: mean_loss(rows, bias, f, y), weight)
        trace = torch.einsum("sisi->", second)
        point = features.clone().requires_grad_()
        slope = torch.autograd.grad(mean_loss(weight, bias, point, labels), point)[0]
        expected = {
            "loss": mean_loss(weight, bias, features, labels),
            "log_loss": mean_loss(weight, bias, features, labels).log(),
            "log_trace": trace.log(),
            "log_relative_sharpness": torch.einsum("si,ti,sjtj->", weight, weight, second).log(),
            "log_layer_relative_sharpness": (weight.square().sum() * trace).log(),
            "log_released_relative_sharpness": (weight.norm() * trace).log(),
            "feature_gradient_norm": slope.norm(),
            "log_feature_gradient_norm": slope.norm().log(),
        }
        for name, value in expected.items():
            assert prompts.column(name)[example, step] == pytest.approx(value.item(), abs=1e-10), name


def test_sharpness_is_confidence_times_norm_for_prompts_too(walks: Trajectory) -> None:
    prompts = walks.prompts()
    log_norm = 2 * np.log(prompts.column("feature_norm"))
    total = prompts.column("log_gini") + log_norm + prompts.column("log_geometry")
    np.testing.assert_allclose(total, prompts.column("log_relative_sharpness"), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        prompts.column("log_gini") + log_norm, prompts.column("log_trace"), rtol=0, atol=1e-12
    )
    low, high = made_head().log_geometry_band
    assert (prompts.column("log_geometry") >= low).all()
    assert (prompts.column("log_geometry") <= high).all()
    tokens = walks.token_column("log_gini")
    np.testing.assert_allclose(prompts.column("log_gini"), np.log(np.exp(tokens).mean(axis=2)), atol=1e-12)


def test_a_target_of_one_token_is_that_token(walks: Trajectory) -> None:
    """Bit by bit, for every measure that has a rule."""
    one = read_tokens(made_head(), FEATURES[:, :, :1], LABELS[:, :, :1], texts=(" Sure",))
    prompts = one.prompts()
    assert len(prompts.measures) > 12
    for name in prompts.measures:
        tokens = one.token_column(name)[:, :, 0]
        np.testing.assert_allclose(prompts.column(name), tokens, rtol=3e-16, atol=0, err_msg=name)


def test_measures_without_a_rule_are_left_out(walks: Trajectory) -> None:
    """A mean of top eigenvalues is no eigenvalue of the mean; nobody should find one under that name."""
    assert {"log_top_eigenvalue", "log_third_order"} < set(walks.measures)
    assert set(walks.prompts().measures) == set(walks.measures) & set(RULES)
    with pytest.raises(InputError, match="log_top_eigenvalue"):
        walks.prompts().column("log_top_eigenvalue")


@pytest.mark.parametrize("depth", [-300.0, -700.0, -5000.0])
def test_vanished_sharpness_keeps_its_logarithm(depth: float) -> None:
    """κ of e^-5000 is no float; the change of its logarithm must stay one."""
    found = uv.phases(made_prompts([[1, 4, depth]], [[False, True, True]]))
    assert found.depth[0] == pytest.approx(1 - depth, rel=1e-14)
    assert found.change_gini[0] == pytest.approx(depth - 1, rel=1e-14)


def test_tokens_that_vanish_wholly_weigh_alike() -> None:
    gone = -np.inf
    columns = {
        "log_relative_sharpness": np.full((1, 1, 2), gone), "log_gini": np.full((1, 1, 2), gone),
        "feature_norm": np.array([[[1.0, 7.0]]]), "log_geometry": np.log([[[1.0, 3.0]]]),
    }  # fmt: skip
    prompts = token_walks(columns, np.array([[True]])).prompts()
    assert prompts.column("log_relative_sharpness")[0, 0] == gone
    assert prompts.column("feature_norm")[0, 0] == pytest.approx(5)  # √((1 + 49)/2)
    assert prompts.column("log_geometry")[0, 0] == pytest.approx(math.log(2))


def test_targets_of_different_lengths_are_means_over_their_own() -> None:
    columns = {"loss": np.array([[[1.0, 2.0, 6.0]], [[4.0, np.nan, np.nan]]])}
    walks = token_walks(columns, np.array([[False], [True]]))
    assert walks.prompts().column("loss").ravel().tolist() == [3, 4]
    assert walks.prompts().column("adversarial").ravel().tolist() == [0, 1]
    tokens = walks.token_column("loss")
    assert tokens.shape == (2, 1, 3)
    assert np.isnan(tokens[1, 0]).tolist() == [False, True, True]


def test_the_least_margin_decides_the_flip(walks: Trajectory) -> None:
    prompts = walks.prompts()
    margin = walks.token_column("margin")
    assert np.array_equal(prompts.column("margin"), margin.min(axis=2))
    assert np.array_equal(prompts.column("adversarial") == 1, (margin > 0).all(axis=2))
    assert np.array_equal(prompts.column("predicted"), prompts.column("adversarial"))


def test_rows_of_another_model_are_apart() -> None:
    import pyarrow as pa

    first = made_prompts([[1, 2]], [[False, True]], models=("one", "two"))
    second = made_prompts([[5, 3]], [[False, False]], models=("one", "two"), model=1)
    both = Trajectory(pa.concat_tables([second.table, first.table]))
    assert both.prompts().column("log_relative_sharpness").ravel().tolist() == pytest.approx([1, 2])
    assert both.prompts(1).column("log_relative_sharpness").ravel().tolist() == pytest.approx([5, 3])
    assert both.token_column("log_gini", model=1).shape == (1, 2, 2)
    assert both.prompts(1).about["model"] == 1
    with pytest.raises(InputError, match="model 2; recorded: 0 \\(one\\), 1 \\(two\\)"):
        both.prompts(2)


def test_a_token_table_says_where_its_columns_are(walks: Trajectory) -> None:
    assert walks.is_tokenised
    assert not walks.prompts().is_tokenised
    with pytest.raises(InputError, match=r"prompts\(\).*token_column"):
        walks.column("log_relative_sharpness")
    with pytest.raises(InputError, match="one row a step"):
        walks.prompts().token_column("loss")
    with pytest.raises(InputError, match="one row a step already"):
        walks.prompts().prompts()
    with pytest.raises(InputError, match="text here"):
        walks.prompts().column("target")
    with pytest.raises(InputError, match="target_loss"):
        walks.accepted()
    assert walks.prompts().table["goal"].to_pylist()[0] == "Tell a story 0"


def test_phases_of_prompts_need_no_detour() -> None:
    walks = made_prompts([[1, 4, 6, 2, 0, -3]], [[False, False, True, True, True, True]])
    found = uv.phases(walks)
    direct = uv.phases(walks.prompts())
    assert found.table.equals(direct.table)
    assert (found.flip_step[0], found.ridge_step[0], found.valley_step[0]) == (2, 2, 4)
    assert found.ridge_height[0] == pytest.approx(5)
    assert found.trajectory.subject == "prompt"


def test_targets_that_are_greedy_at_the_start_are_counted_apart() -> None:
    summary = uv.phases(made_prompts([[1, 2], [1, 0]], [[True, True], [False, True]])).summary()
    assert summary.walks[0].misclassified == 1
    assert summary.walks[0].examples == 1
    assert json.loads(json.dumps(summary.to_dict()))["subject"] == "prompt"


# --- in words ---------------------------------------------------------------------------------------


def many(
    sharpness: list[float], flipped: list[bool], attack: str, jitter: float = 0.3, **more: object
) -> Trajectory:
    """Eight prompts that walk alike, a little apart from each other."""
    drawn = np.random.default_rng(len(attack)).normal(0, jitter, (8, 1)) * np.linspace(0, 1, len(sharpness))
    return made_prompts((np.array(sharpness) + drawn).tolist(), [flipped] * 8, attack, **more)


FLIP_LATE = [False, False, True, True]
NEVER = [False] * 4


def said(*walks: Trajectory) -> str:
    return reading(uv.phases(walks[0], walks[1:]).summary())


def test_prompts_are_spoken_of_as_prompts() -> None:
    summary = uv.phases(many([1, 3, 2, 1], FLIP_LATE, "gcg")).summary()
    assert "target is greedy" in str(summary)
    assert "ends below start" in str(summary)
    text = str(summary) + reading(summary)
    for word in ("image", "label", "clean", "eps"):
        assert word not in text


def test_the_soft_prompt_is_what_the_discreteness_of_tokens_is_judged_by() -> None:
    tokens = many([1, 2, 1, 1], FLIP_LATE, "gcg")
    deep, shallow = (
        many([1, 0, -3, -6], FLIP_LATE, "soft-prompt"),
        many([1, 1, 1, 1], FLIP_LATE, "soft-prompt"),
    )
    sharp, weak = many([1, 3, 5, 7], FLIP_LATE, "soft-prompt"), many([1, 1, 1, 1], NEVER, "soft-prompt")
    assert "in keeping with the reason that token space is discrete" in said(tokens, deep)
    assert "no support to discreteness" in said(tokens, shallow)
    assert "is not the reason here" in said(tokens, sharp)
    assert "cannot say whether the discreteness" in said(tokens, weak)
    assert "soft prompt" not in said(tokens)
    assert "soft prompt, which" not in said(deep, tokens)


def test_flatter_but_not_below_the_start_is_only_a_part() -> None:
    assert "at most a part of the reason" in said(
        many([1, 2, 5, 6], FLIP_LATE, "gcg"), many([1, 2, 2.5, 2.5], FLIP_LATE, "soft-prompt", jitter=0.1)
    )


def test_a_few_prompts_decide_nothing() -> None:
    tokens = made_prompts([[1, 2, 1, 1]] * 3, [FLIP_LATE] * 3)
    deep = made_prompts([[1, 0, -3, -6]] * 3, [FLIP_LATE] * 3, "soft-prompt")
    assert "3 prompts are too few" in said(tokens, deep)
    assert "in keeping" not in said(tokens, deep)


def test_random_tokens_say_what_is_no_mark_of_an_attack() -> None:
    random_walk = many([1, 1, 0.5, 0.5], NEVER, "random-tokens", jitter=0)
    text = said(many([1, 2, 1, 1], FLIP_LATE, "gcg"), random_walk)
    assert "make 0% of the targets greedy and end 0.5 nats below the start" in text


def test_readings_of_images_speak_of_images_still() -> None:
    walks = [
        made([[0, 5, -4]] * 6, [[False, True, True]] * 6),
        made([[0, 0, -1]] * 6, [[False] * 3] * 6, "assist"),
    ]
    text = said(*walks)
    assert "clean image" in text
    assert "falls by 1.0 nats: a fall by itself" in text


def test_an_assist_control_that_ends_sharper_is_said_to_rise() -> None:
    walks = [
        made([[0, 5, -4]] * 6, [[False, True, True]] * 6),
        made([[0, 0, 0.4]] * 6, [[False] * 3] * 6, "assist"),
    ]
    assert "without any flip, rises by 0.4 nats." in said(*walks)


# --- doubts -----------------------------------------------------------------------------------------


def doubts(*walks: Trajectory) -> dict[str, Diagnostic]:
    return {one.name: one for one in uv.phases(walks[0], walks[1:]).diagnostics}


def test_a_calm_walk_of_prompts_raises_no_doubt() -> None:
    found = doubts(many([1, 2, 1, 1], FLIP_LATE, "gcg"), many([1, 1, 1, 1], NEVER, "random-tokens"))
    assert set(found) == {
        "targets not reached", "flat to begin with", "searches too little", "random tokens as strong as the attack",
    }  # fmt: skip
    assert not [one for one in found.values() if one.fired]
    assert not doubts(many([1, 1, 1, 1], NEVER, "random-tokens"))


def test_each_doubt_about_prompts_fires_where_it_must() -> None:
    falling = [[4.0, 3.0, 2.0, 1.0]] * 8
    assert doubts(many([1, 1, 1, 1], NEVER, "gcg"))["targets not reached"].fired
    assert doubts(many([1, 1, 1, 1], NEVER, "gcg", loss=falling))["searches too little"].fired
    assert not doubts(many([1, 1, 1, 1], FLIP_LATE, "gcg", loss=falling))["searches too little"].fired
    worse = [[4.0, 1.0, 2.0, 1.5]] * 8  # what follows the best step is no progress
    assert not doubts(many([1, 1, 1, 1], NEVER, "gcg", loss=worse))["searches too little"].fired
    assert doubts(many([-40, -40, -40, -40], FLIP_LATE, "gcg"))["flat to begin with"].fired
    as_strong = doubts(many([1, 1, 1, 1], FLIP_LATE, "gcg"), many([1, 1, 1, 1], FLIP_LATE, "random-tokens"))
    assert as_strong["random tokens as strong as the attack"].fired


def test_prompts_that_a_watched_search_never_asked_about_count_nowhere() -> None:
    """Their rows are missing, not false."""
    asked = many([-40, -40, -40, -40], FLIP_LATE, "gcg")
    watched = Trajectory(asked.table, ids=tuple(range(20))).described(observed=True)
    found = uv.phases(watched)
    assert len(found) == 8
    assert found.own_summary.flipped.value == 1
    figures = {one.name: one.figure for one in found.diagnostics}
    assert figures["flat to begin with"] == 1
    assert figures["targets not reached"] == 0


def test_runs_of_prompts_are_compared_by_prompts() -> None:
    walks = {
        name: Walked(many([1, 2, depth, depth], FLIP_LATE, "gcg"), "prompts")
        for name, depth in (("one", 0.0), ("two", -2.0))
    }
    found = compare_runs(walks)
    assert "target is greedy" in str(found.phase_table())
    assert found.walks[1].depth.value - found.walks[0].depth.value == pytest.approx(2)
    images = Walked(made([[1, 2, 0]] * 6, [[False, True, True]] * 6), "images")
    with pytest.raises(InputError, match="images and prompts"):
        compare_runs({"one": walks["one"], "two": images})
