"""Plan files of trainings: the grid that they span, what each cell asks for, and what is said about mistakes."""

import re
import textwrap
from pathlib import Path

import pytest

from plan_texts import NAME, refusal_of
from uncannyvalley.errors import InputError
from uncannyvalley.train.objectives import named
from uncannyvalley.train.plan_file import AXES, TrainingCell, TrainingGrid, parse_trainings, read_trainings
from uncannyvalley.train.request import TrainingRequest, recipe_of

EVERYTHING = """
    seeds = [7]
    precision = "bf16-mixed"

    [[models]]
    model = "family:small-cnn"
    weights = "begun.safetensors"
    arguments = {width = 0.5}
    head = "cosine"
    head_name = "net.20"
    scale = 12

    [[data]]
    data = "npz:train.npz"
    limit = 512
    validation = "npz:validation.npz"
    test = "digits"

    [[objectives]]
    objective = "trades+log-flatness+sam"
    arguments = {eps = "8/255", beta = 3, weight = 0.1, rho = 0.01, norm = "linf"}

    [[recipes]]
    name = "long"
    epochs = 30
    batch_size = 64
    optimizer = "adamw"
    learning_rate = "1/1000"
    momentum = 0.8
    weight_decay = 0
    schedule = "one-cycle"
    clip = 1
    crop = 4
    mirror = true
    validation_share = 0.2
    selection = "clean"
    evaluation_norm = "l2"
    evaluation_eps = 0.5
    evaluation_steps = 5
    evaluation_random_start = true
    evaluation_examples = 200
    evaluate_every = 3
"""


def grid_of(text: str, folder: Path = Path("nowhere")) -> TrainingGrid:
    return parse_trainings(textwrap.dedent(text), NAME, folder)


def refused(text: str) -> list[str]:
    return refusal_of(lambda: grid_of(text))


def test_a_plan_of_one_line_is_what_train_does_by_default() -> None:
    (cell,) = grid_of("seeds = [0]").cells()
    labels = {
        "model": "small-cnn",
        "data": "digits-train",
        "objective": "erm",
        "recipe": "default",
        "seed": "0",
    }
    assert cell == TrainingCell(labels, TrainingRequest())
    assert cell.place == "model=small-cnn/data=digits-train/objective=erm/recipe=default/seed=0"
    assert tuple(cell.labels) == AXES


def test_every_setting_reaches_the_request() -> None:
    (cell,) = grid_of(EVERYTHING).cells()
    assert cell.request == TrainingRequest(
        model="family:small-cnn", model_arguments={"width": "0.5"}, weights="begun.safetensors", head="cosine",
        head_name="net.20", scale=12.0, data="npz:train.npz", limit=512, validation="npz:validation.npz", test="digits",
        objective="trades+log-flatness+sam", seed=7, precision="bf16-mixed",
        objective_arguments={"eps": "8/255", "beta": "3", "weight": "0.1", "rho": "0.01", "norm": "linf"},
        settings={
            "epochs": 30, "batch_size": 64, "optimizer": "adamw", "learning_rate": 0.001, "momentum": 0.8, "weight_decay": 0.0,
            "schedule": "one-cycle", "clip": 1.0, "crop": 4, "mirror": True, "validation_share": 0.2, "selection": "clean",
            "evaluation_norm": "l2", "evaluation_eps": 0.5, "evaluation_steps": 5, "evaluation_random_start": True,
            "evaluation_examples": 200, "evaluate_every": 3,
        },
    )  # fmt: skip
    recipe = recipe_of(cell.request, named("erm"))
    assert (recipe.norm, recipe.eps, recipe.attack_steps, recipe.random_start) == ("l2", 0.5, 5, True)
    assert (recipe.augmentation.pad, recipe.augmentation.mirror, recipe.seed) == (4, True, 7)


def test_lists_span_the_grid_and_names_are_made_of_what_was_written() -> None:
    cells = grid_of(
        """
        seeds = {first = 1, count = 2}
        objectives = ["erm", "squared"]
        [[models]]
        model = "family:small-cnn"
        head = ["linear", "cosine"]
        [[recipes]]
        learning_rate = [0.1, 0.05]
        mirror = true
        """
    ).cells()
    assert len(cells) == 2 * 2 * 2 * 2
    assert [cell.place for cell in cells[:3]] == [
        "model=small-cnn-head_linear/data=digits-train/objective=erm/recipe=learning_rate_0.1-mirror_yes/seed=1",
        "model=small-cnn-head_linear/data=digits-train/objective=erm/recipe=learning_rate_0.1-mirror_yes/seed=2",
        "model=small-cnn-head_linear/data=digits-train/objective=erm/recipe=learning_rate_0.05-mirror_yes/seed=1",
    ]
    assert cells[-1].request.head == "cosine"
    assert cells[-1].request.objective == "squared"
    assert cells[-1].request.settings == {"learning_rate": 0.05, "mirror": True}


@pytest.mark.parametrize(
    "text", [EVERYTHING, "seeds = {first = 3, count = 2}", 'objectives = ["erm", "squared"]']
)
def test_a_plan_that_is_spelled_out_spans_the_same_cells(text: str, tmp_path: Path) -> None:
    grid = grid_of(text)
    (tmp_path / "again.toml").write_text(grid.to_toml())
    assert read_trainings(tmp_path / "again.toml").cells() == grid.cells()


def test_paths_are_those_of_the_plans_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train.npz", "validation.npz", "test.npz", "begun.safetensors", "net.py"):
        (tmp_path / name).touch()
    monkeypatch.chdir("/")
    (cell,) = grid_of(
        """
        [[models]]
        model = "net.py:build"
        weights = "begun.safetensors"
        [[data]]
        data = "npz:train.npz"
        validation = "npz:validation.npz"
        test = "npz:test.npz"
        """,
        tmp_path,
    ).cells()
    request = cell.request
    assert request.model == f"{tmp_path}/net.py:build"
    assert request.weights == f"{tmp_path}/begun.safetensors"
    assert (request.data, request.validation, request.test) == tuple(
        f"npz:{tmp_path}/{name}.npz" for name in ("train", "validation", "test")
    )
    assert cell.labels["data"] == "train-validation_validation"


def test_all_mistakes_are_told_with_their_lines() -> None:
    assert refused(
        """
        epochs = 3
        seeds = [0, 0]
        [[objectives]]
        objective = ["pgd-at", "pgd-at+flatnes"]
        arguments = {eps = ["8/255", "big"]}
        [[objectives]]
        objective = "erm+flatness"
        [[objectives]]
        objective = "erm"
        arguments = {wieght = 0.1}
        [[recipes]]
        epochs = 0
        schedule = "cosin"
        [[recipes]]
        selection = "robust"
        evaluation_eps = 0
        [[models]]
        head = "cosine"
        """
    ) == [
        "2: epochs: epochs is no key of the whole plan but of [[recipes]]",
        "3: seeds[1]: seed 0 is there twice",
        "5: objectives[0].objective[1]: unknown wrapper of objectives 'flatnes'; did you mean 'flatness'? "
        "Known: flatness, log-flatness, sam",
        "6: objectives[0].arguments.eps[1]: 'big' is no number; write it as 0.03 or as 8/255",
        "8: objectives[1].objective: the objective 'flatness' needs weight; give it, for example weight=0.1",
        "11: objectives[2].arguments.wieght: unknown argument of the objective 'erm', 'wieght'. Known: loss",
        "13: recipes[0].epochs: expected at least 1, got 0",
        "14: recipes[0].schedule: unknown schedule 'cosin'; did you mean 'cosine'? "
        "Known: constant, cosine, one-cycle, piecewise",
        "16: recipes[1].selection: selection by robust accuracy needs the attack at validation: give eps, or select by "
        "clean accuracy",
        '18: models[0]: model is missing; name one, as model = "family:small-cnn" or model = "my_model.py:build"',
    ]


def test_two_points_of_an_axis_cannot_share_a_folder() -> None:
    (line,) = refused(
        """
        [[data]]
        data = "digits:train"
        [[data]]
        data = "digits:train"
        test = "digits"
        """
    )
    assert line.startswith(
        "4: data[1]: 'digits-train' is in data[0] already; give tables that differ (test = "
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").touch()
    for path, says in (
        (tmp_path / "nowhere.toml", "does not exist"),
        (tmp_path, "is a folder; expected a plan file"),
        (tmp_path / "empty.toml", r'the plan is empty; the shortest one is objectives = \["erm"\]'),
    ):
        with pytest.raises(InputError, match=says):
            read_trainings(path)


@pytest.mark.parametrize(
    ("objective", "arguments", "settings", "expected"),
    [
        ("erm", {}, {}, ("linf", 8 / 255, "clean")),
        ("pgd-at", {"eps": "0.1"}, {}, ("linf", 0.1, None)),
        ("trades", {"eps": "0.5", "norm": "l2"}, {}, ("l2", 0.5, None)),
        ("pgd-at", {"eps": "0.1"}, {"evaluation_norm": "l2"}, ("l2", 0.5, None)),
        ("erm", {}, {"evaluation_eps": 0.0}, ("linf", None, "clean")),
        ("erm", {}, {"selection": "robust"}, ("linf", 8 / 255, "robust")),
        ("erm", {}, {"validation_share": 0.0}, ("linf", 8 / 255, None)),
    ],
)
def test_the_attack_at_validation_is_the_objectives_own(
    objective: str, arguments: dict[str, str], settings: dict[str, object], expected: tuple[object, ...]
) -> None:
    recipe = recipe_of(TrainingRequest(settings=settings), named(objective, arguments))
    assert (recipe.norm, recipe.eps, recipe.selection) == expected


def test_the_plan_in_the_documentation() -> None:
    folder = Path(__file__).resolve().parents[1] / "docs"
    assert len(read_trainings(folder / "example-trainings.toml").cells()) == 8
    (text,) = re.findall(r"```toml\n(.*?)```", (folder / "training.md").read_text(), re.DOTALL)
    assert len(grid_of(text).cells()) == 2 * (2 + 2) * 3
