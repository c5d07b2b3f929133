"""uncanny record with attacks of libraries, settings by name and weights: run folders like any other."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import uncannyvalley as uv
from test_curvature_commands import in_process
from uncannyvalley import InputError, adversaries, data, zoo
from uncannyvalley.report.pages.command import command_of
from uncannyvalley.run.folder import open_run
from uncannyvalley.run.named_attack import make_attack
from uncannyvalley.run.request import Request, load_images, load_model

SQUARE = (
    "--attack",
    "square",
    "--attack-arg",
    "queries=40",
    "--eps",
    "0.3",
    "--limit",
    "12",
    "--shard-size",
    "6",
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("runs") / "square"
    shown = in_process("record", *SQUARE, "--batch-size", "6", "--keep-images", "4", "--out", out, "--json")
    return json.loads(shown.stdout), out


def test_a_watched_run_is_a_run_folder_with_its_controls(recorded: tuple[dict, Path]) -> None:
    printed, out = recorded
    run = open_run(out)
    assert run.missing_shards() == []
    assert sorted(run.controls()) == ["assist", "noise"]
    assert [walk["name"] for walk in printed["walks"]] == ["square", "noise", "assist"]
    for name in ("phases.parquet", "walk.png", "report.html"):
        assert (out / name).stat().st_size > 2000
    assert run.plan.attack.settings["batch_size"] == 6
    assert run.plan.attack.settings["library"].startswith("pyautoattack")
    assert "to 5" in (out / "report.html").read_text(encoding="utf-8")  # "to 5x queries an image"


def test_the_manifest_counts_queries_and_the_librarys_own_successes(recorded: tuple[dict, Path]) -> None:
    printed, out = recorded
    run = open_run(out)
    counts = [one["queries"] for one in run.manifest().shards.values()]
    assert len(counts) == 2
    assert all(one["fooled"] == one["fooled_seen"] for one in counts)
    assert sum(one["matched"] for one in counts) == run.trajectory.table.num_rows
    named = {one["name"]: one for one in printed["diagnostics"]}
    assert named["library counts otherwise"]["fired"] is False
    assert named["queries kept apart"]["figure"] == 0


def test_a_watched_run_equals_watch(recorded: tuple[dict, Path]) -> None:
    images = data.load("digits").first(12)
    attack = adversaries.square(eps=0.3, queries=40)
    direct = uv.watch(zoo.demo(), images[:], images.labels, attack, batch_size=6)
    run = open_run(recorded[1]).trajectory
    for name in ("log_relative_sharpness", "predicted", "distance_linf"):
        np.testing.assert_array_equal(run.column(name), direct.column(name))


def test_kept_images_are_those_of_the_rows(recorded: tuple[dict, Path]) -> None:
    run = open_run(recorded[1])
    kept = run.images()
    assert sorted(kept) == [0, 1, 2, 3]
    moved = run.trajectory.column("distance_linf")
    for example, steps in kept.items():
        clean = steps[0][1]
        for step, (_, pixels) in steps.items():
            assert np.abs(pixels - clean).max() == pytest.approx(moved[example, step], abs=1e-6)


def test_the_same_command_finds_it_complete_and_another_setting_is_another_run(
    recorded: tuple[dict, Path],
) -> None:
    out = recorded[1]
    common = ("--batch-size", "6", "--keep-images", "4", "--out", out)
    assert "complete already" in in_process("record", *SQUARE, *common).stdout
    other = [one.replace("queries=40", "queries=41") for one in SQUARE]
    assert "attack.settings" in in_process("record", *other, *common, code=2).stderr


def test_the_command_on_the_page_records_the_same_run(recorded: tuple[dict, Path]) -> None:
    import shlex

    words = shlex.split(command_of(open_run(recorded[1])))[1:]
    words[words.index("--out") + 1] = str(recorded[1])
    assert "complete already" in in_process(*words, "--shard-size", "6").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--attack", "squar"), "did you mean 'square'"),
        (("--attack", "square", "--steps", "5"), "--steps does not go with square"),
        (("--attack", "square", "--every", "2"), "--every does not go with square"),
        (("--attack", "apgd-ce", "--target", "3"), "--target does not go with apgd-ce"),
        (("--attack", "square", "--attack-arg", "quer=5"), "did you mean 'queries'"),
        (("--attack", "square", "--attack-arg", "queries=many"), "queries='many'"),
        (("--attack", "pgd", "--attack-arg", "eps=0.1"), "--eps in place of"),
        (("--attack", "cw", "--norm", "linf"), "cw has the norm l2"),
        (("--attack", "evading", "--attack-arg", "score=log_kappa"), "unknown measure"),
        (("--attack", "isoconfidence", "--attack-arg", "push=log_trace@3"), "log_relative_sharpness@3"),
        (("--attack", "isoconfidence", "--attack-arg", "push=log_relative_sharpness@x"), "'x'"),
    ],
)  # fmt: skip
def test_settings_that_an_attack_does_not_have_are_refused(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    ended = in_process("record", *arguments, "--limit", "4", "--out", tmp_path / "run", code=2)
    assert says in ended.stderr
    assert not (tmp_path / "run").exists()


def made(**options: object) -> object:
    request = Request(limit=4, **options)
    return make_attack(request, load_model(request, load_images(request))[0])


def test_norm_and_radius_are_the_attacks_own_where_none_are_given() -> None:
    assert (made(attack="cw").norm, made(attack="cw").eps) == ("l2", None)
    assert (made(attack="deepfool").norm, made(attack="deepfool").eps) == ("linf", None)
    assert made(attack="deepfool", eps=0.1).eps == 0.1
    assert made(attack="apgd-ce").eps == pytest.approx(8 / 255)
    assert made(attack="apgd-ce", norm="l2").eps == 0.5
    assert made(attack="pgd", norm="l2").settings["eps"] == 0.5
    assert made(attack="apgd-ce", restarts=2, steps=3).settings["restarts"] == 2


def test_settings_of_our_attacks_by_name() -> None:
    assert made(attack="pgd", attack_arguments={"stop": "0.5"}).settings["stop"] == 0.5
    assert "stop" not in made(attack="pgd").settings
    pushed = made(
        attack="isoconfidence", attack_arguments={"push": "log_relative_sharpness@3", "up": "false"}
    )
    assert pushed.settings["up"] is False
    assert "3" in str(pushed.settings["push"])


def test_weights_of_a_file_decide_the_run(tmp_path: Path) -> None:
    net = zoo.load("family:vgg11-bn", {"width": "0.02", "channels": "1"})
    torch.manual_seed(3)
    state = {
        name: torch.rand_like(value) if value.is_floating_point() else value
        for name, value in net.net.state_dict().items()
    }
    save_file(state, tmp_path / "other.safetensors")
    common = {"model": "family:vgg11-bn", "model_arguments": {"width": "0.02", "channels": "1"}, "limit": 2}
    images = load_images(Request(**common))
    plain, other = (
        load_model(Request(**common, weights=weights), images)[1]
        for weights in (None, str(tmp_path / "other.safetensors"))
    )
    assert plain != other
    with pytest.raises(InputError, match="does not exist"):
        load_model(Request(**common, weights=str(tmp_path / "none.pt")), images)


def test_lists_name_what_can_be_asked_for() -> None:
    attacks = {row["name"]: row for row in json.loads(in_process("list", "attacks", "--json").stdout)}
    assert set(attacks) >= {"pgd", "evading", "isoconfidence", "orthogonal", *adversaries.ADVERSARIES}
    assert all(row["description"] for row in attacks.values())
    for what in ("models", "data"):
        forms = json.loads(in_process("list", what, "--json").stdout)
        assert any(row["form"].startswith("hf:") for row in forms)
