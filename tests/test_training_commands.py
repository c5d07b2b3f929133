"""``uncanny train``: by options and by plan, what it writes and says, and what its networks are good for."""

import json
import re
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from click.testing import Result
from typer.testing import CliRunner

from uncannyvalley import zoo
from uncannyvalley.cli.app import app
from uncannyvalley.train.request import Training

SMALL = ("--model-arg", "width=0.25", "--limit", "160", "--batch-size", "36", "--evaluation-steps", "2")
FILES = {
    "plan.toml", "network.safetensors", "checkpoint.safetensors", "log.csv", "result.json", "training.png", "report.html",
}  # fmt: skip

PLAN = """
seeds = [0, 1]
[[models]]
model = "family:small-cnn"
arguments = {width = 0.25}
[[data]]
data = "digits:train"
limit = 160
test = "digits"
[[objectives]]
objective = ["erm", "squared+sam"]
[[recipes]]
name = "short"
epochs = 1
batch_size = 36
evaluation_steps = 2
"""


def uncanny(*arguments: str | Path, code: int = 0) -> Result:
    """The command line without a process of its own."""
    jaxtyping.config.update("jaxtyping_disable", True)  # the shape hook cannot read typer's annotations
    try:
        ended = CliRunner().invoke(app, [str(one) for one in arguments])
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert ended.exit_code == code, ended.output + repr(ended.exception)
    return ended


def trained(out: Path, *arguments: str | Path) -> dict[str, Any]:
    return json.loads(uncanny("train", "--out", out, *SMALL, *arguments, "--json").stdout)


def words(ended: Result) -> str:
    """Both outputs, unwrapped."""
    return re.sub(r"\s+", " ", ended.stdout + ended.stderr)


@pytest.fixture(scope="module")
def adversarial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A cosine-headed network, trained adversarially and for flatness."""
    out = tmp_path_factory.mktemp("trained") / "adversarial"
    told = trained(
        out, "--head", "cosine", "--scale", "5", "--objective", "pgd-at+log-flatness", "--objective-arg", "eps=16/255",
        "--objective-arg", "steps=2", "--objective-arg", "weight=0.01", "--epochs", "3", "--crop", "1", "--mirror", "--seed", "3",
        "--test", "digits",
    )  # fmt: skip
    return out, told


def test_train_writes_a_folder_and_says_what_came_of_it(adversarial: tuple[Path, dict[str, Any]]) -> None:
    out, told = adversarial
    assert {one.name for one in out.iterdir() if not one.name.startswith(".")} == FILES
    assert told["trained"]
    assert told["epochs"] == 3
    assert told["attack"] == "PGD, linf 16/255, 2 steps"
    assert set(told["accuracies"]) == {"validation", "test"}
    assert told["accuracies"]["test"]["images"] == 540
    assert told["accuracies"]["validation"]["images"] == 16
    selected = told["selected"]
    assert told["accuracies"]["validation"]["robust"] == selected["robust_accuracy"]
    assert selected["log_sharpness"] != 0
    for name, file in told["files"].items():
        assert Path(file).stat().st_size > 100, name
    page = (out / "report.html").read_text()
    assert "pgd-at+log-flatness" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_the_same_command_finds_everything_there(adversarial: tuple[Path, dict[str, Any]]) -> None:
    out, told = adversarial
    before = {name: (out / name).read_bytes() for name in FILES}
    plan = json.loads(uncanny("show", out, "--json").stdout)
    assert plan["complete"]
    assert plan["key"] == told["key"]
    shown = words(uncanny("show", out))
    assert "epochs 3 of 3" in shown
    assert "kept" in shown
    again = words(
        uncanny(
            "train", "--out", out, *SMALL, "--head", "cosine", "--scale", "5", "--objective", "pgd-at+log-flatness",
            "--objective-arg", "eps=16/255", "--objective-arg", "steps=2", "--objective-arg", "weight=0.01", "--epochs", "3",
            "--crop", "1", "--mirror", "--seed", "3", "--test", "digits",
        )
    )  # fmt: skip
    assert "is complete already: nothing to train" in again
    assert f"uncanny record --model {out} --data digits" in again
    assert before == {name: (out / name).read_bytes() for name in FILES}


def test_other_commands_take_the_network(adversarial: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = adversarial
    walk = ("--limit", "12", "--eps", "0.2", "--steps", "3", "--keep-images", "4")
    uncanny("record", "--model", out, *walk, "--out", tmp_path / "walk")
    uncanny("check", "--model", out, "--limit", "4")
    uncanny("measure", "--model", out, "--limit", "2", "--layer", "input")
    uncanny("detect", "fit", "--model", out, "--limit", "100", "--out", tmp_path / "own.detector")
    uncanny("detect", "score", tmp_path / "own.detector", "digits", "--limit", "5")
    refused = words(uncanny("certify", "--model", out, "--limit", "300", code=2))
    assert "no certified Lipschitz rule" in refused  # φ/|φ| has no finite constant near 0
    (tmp_path / "plan.toml").write_text(
        f'models = ["{out}"]\nkeep_images = 0\n[[data]]\ndata = "digits"\nlimit = 8\n[[attacks]]\nattack = "pgd"\nsteps = 2'
    )
    uncanny("run", tmp_path / "plan.toml", "--out", tmp_path / "study", "--no-pages")


def test_a_plain_network_is_certified_and_bounded(tmp_path: Path) -> None:
    trained(tmp_path / "plain", "--epochs", "8")
    told = json.loads(uncanny("certify", "--model", tmp_path / "plain", "--limit", "3", "--json").stdout)
    assert told
    record = ("--limit", "4", "--steps", "2", "--keep-images", "4", "--no-controls")
    uncanny("record", "--model", tmp_path / "plain", *record, "--out", tmp_path / "walk")
    uncanny("bound", tmp_path / "walk", "--json")


def test_networks_of_python_files_and_training_on(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from torch import nn\n\ndef build(width: int = 6):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))\n"
    )
    own = f"{file}:build"
    small = ("--limit", "160", "--batch-size", "36", "--evaluation-eps", "0", "--epochs", "1")
    first = tmp_path / "first"
    said = words(uncanny("train", "--out", first, "--model", own, "--model-arg", "width=9", *small))
    assert f"--model {first} --model-arg file={own}" in said.replace("'", "")
    assert "under the attack" not in said
    refused = words(uncanny("train", "--out", tmp_path / "second", "--model", first, *small, code=2))
    assert "code is run only where you name it" in refused
    named = ("--model-arg", f"file={own}")
    uncanny(
        "train",
        "--out",
        tmp_path / "second",
        "--model",
        first,
        *named,
        *small,
        "--head",
        "cosine",
        "--seed",
        "1",
    )
    uncanny("record", "--model", tmp_path / "second", *named, "--limit", "4", "--steps", "2", "--out", tmp_path / "walk")  # fmt: skip
    assert "code is run" in words(uncanny("bound", tmp_path / "walk", code=2))
    third = ("--model", tmp_path / "second", *named, *small)
    assert "has a cosine head already" in words(
        uncanny("train", "--out", tmp_path / "third", *third, "--head", "cosine", code=2)
    )
    uncanny("train", "--out", tmp_path / "third", *third)
    assert zoo.load(str(tmp_path / "third"), {"file": own}) is not None


def test_a_plan_trains_its_grid_part_by_part(tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.toml", tmp_path / "all"
    plan.write_text(PLAN)
    listed = json.loads(uncanny("train", plan, "--out", out, "--dry-run", "--json").stdout)
    assert [one["labels"]["objective"] for one in listed] == ["erm", "erm", "squared+sam", "squared+sam"]
    assert all((one["steps"], one["looks"]) == (4, 1) and one["seconds"] > 0 for one in listed)
    assert not out.exists()
    assert "4 trainings take" in words(uncanny("train", plan, "--out", out, "--dry-run"))
    part = json.loads(uncanny("train", plan, "--out", out, "--part", "1/2", "--json").stdout)
    assert [one["labels"]["seed"] for one in part["trainings"]] == ["0", "0"]
    shown = json.loads(uncanny("show", out, "--json").stdout)
    assert (shown["complete"], len(shown["trainings"])) == (2, 2)
    said = words(uncanny("train", plan, "--out", out))
    assert "2 trained, 2 complete already." in said
    assert "2.1" not in said.split("Trainings")[0]
    folder = (
        out / "model=small-cnn-width_0.25/data=digits-train-160/objective=squared+sam/recipe=short/seed=1"
    )
    assert {one.name for one in folder.iterdir() if not one.name.startswith(".")} == FILES
    assert "4 trainings begun, 4 complete" in words(uncanny("show", out))
    moved = json.loads(uncanny("train", out / "trainings.toml", "--out", out, "--json").stdout)
    assert not any(one["trained"] for one in moved["trainings"])


def test_a_plan_of_one_cell_is_its_folder(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace("[0, 1]", "[0]").replace(', "squared+sam"', ""))
    told = json.loads(uncanny("train", tmp_path / "plan.toml", "--out", tmp_path / "one", "--json").stdout)
    assert told["folder"] == str(tmp_path / "one")
    by_options = trained(tmp_path / "one", "--epochs", "1", "--test", "digits")
    assert (by_options["key"], by_options["trained"]) == (told["key"], False)


def test_one_training_that_fails_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        PLAN.replace("seeds = [0, 1]", "seeds = [0]")
        .replace(', "squared+sam"', "")
        .replace('name = "short"', "learning_rate = [0.1, 1e30]")
    )
    ended = uncanny("train", tmp_path / "plan.toml", "--out", tmp_path / "all", code=1)
    assert "1 trained, 0 complete already." in words(ended)
    assert re.search(r"failed: \S+learning_rate_1e\+30\S+: .*diverged", words(ended))


def test_an_interrupted_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(tmp_path / "whole", "--epochs", "2")
    fit = Training.fit

    def interrupted(self: Training, out: Any, *, progress: Any, **options: Any) -> Any:
        def stop(done: int, total: int, losses: dict[str, float]) -> None:
            if done == 5:
                raise KeyboardInterrupt

        return fit(self, out, progress=stop, **options)

    arguments = ("train", "--out", tmp_path / "cut", *SMALL, "--epochs", "2", "--checkpoint-every", "0")
    with monkeypatch.context() as patched:
        patched.setattr(Training, "fit", interrupted)
        said = words(uncanny(*arguments, code=130))
    assert "the same command goes on from there" in said
    assert "Not finished" in words(uncanny("show", tmp_path / "cut"))
    told = json.loads(uncanny(*arguments, "--json").stdout)
    assert told["key"] == whole["key"]
    for name in ("network.safetensors", "log.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--objective", "pgd"], "did you mean 'pgd-at'"),
        (["--objective", "erm+flatness"], "needs weight"),
        (["--objective-arg", "eps=0.1"], "unknown argument of the objective 'erm'"),
        (["--objective-arg", "eps"], "--objective-arg takes name=value"),
        (["--head", "cosin"], "did you mean 'cosine'"),
        (["--scale", "3"], "scale is that of a cosine head"),
        (["--head", "cosine", "--scale", "-1"], "scale of a cosine head must be a finite number above 0"),
        (["--head-name", "net.3"], "unknown head 'net.3'"),
        (["--model", "family:smal-cnn"], "did you mean 'small-cnn'"),
        (["--data", "digits:all"], "unknown part of digits"),
        (["--limit", "0"], "limit must be a whole number of at least 1"),
        (["--epochs", "0"], "epochs must be a whole number of at least 1"),
        (["--learning-rate", "0"], "learning_rate must be a finite number above 0"),
        (["--optimizer", "adam"], "did you mean 'adamw'"),
        (["--schedule", "cos"], "did you mean 'cosine'"),
        (["--selection", "best"], "unknown selection 'best'"),
        (["--evaluation-eps", "small"], "'small' is no number"),
        (["--evaluation-eps", "0", "--selection", "robust"], "give eps, or select by clean accuracy"),
        (["--batch-size", "5000"], "5000"),
        (["--seed", "-1"], "seed must be a whole number of at least 0"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--devices", "0"], "devices must be a whole number of at least 1"),
        (["--precision", "16"], "unknown precision '16'"),
        (["--logger", "wandb"], "unknown logger 'wandb'"),
        (["--part", "1/2"], "give a plan file"),
        (["--part", "3/2"], "--part takes K/N"),
        (["--crop", "8"], "pad=8"),
        (["--model-arg", "channels=3"], "the model takes images of shape (n, 3, height, width)"),
        (["--model-arg", "classes=5"], "the labels of --data must hold classes 0 to 4"),
        (["nowhere.toml"], "plan file 'nowhere.toml' does not exist"),
    ],
)
def test_mistakes_are_told(options: list[str], says: str, tmp_path: Path) -> None:
    ended = uncanny("train", "--out", tmp_path / "out", *options, code=2)
    assert says in words(ended)
    assert not (tmp_path / "out" / "network.safetensors").exists()


def test_images_that_do_not_go_together(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "large.npz", x=np.zeros((4, 1, 9, 9), np.uint8), y=np.zeros(4, int))
    ended = uncanny("train", "--out", tmp_path / "out", "--test", f"npz:{tmp_path}/large.npz", code=2)
    assert "--test holds images of shape (1, 9, 9)" in words(ended)


def test_a_plan_and_options_cannot_contradict(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    ended = uncanny(
        "train", tmp_path / "plan.toml", "--out", tmp_path, "--epochs", "3", "--seed", "0", code=2
    )
    assert "write --epochs, --seed into" in words(ended)
    (tmp_path / "wrong.toml").write_text(
        PLAN.replace("digits:train", "digits:trian").replace("[0, 1]", "[0]")
    )
    ended = uncanny("train", tmp_path / "wrong.toml", "--out", tmp_path / "out", code=2)
    assert "objective=erm/recipe=short/seed=0: unknown part of digits 'trian'" in words(ended)
    assert not (tmp_path / "out").exists()


def test_another_training_is_not_overwritten_unasked(tmp_path: Path) -> None:
    first = trained(tmp_path / "out", "--epochs", "1")
    refused = words(uncanny("train", "--out", tmp_path / "out", *SMALL, "--epochs", "2", code=2))
    assert "recipe.epochs" in refused
    second = trained(tmp_path / "out", "--epochs", "2", "--overwrite")
    assert second["key"] != first["key"]


def test_lists() -> None:
    names = [row["name"] for row in json.loads(uncanny("list", "objectives", "--json").stdout)]
    assert names[:4] == ["erm", "squared", "pgd-at", "trades"]
    forms = [row["form"] for row in json.loads(uncanny("list", "models", "--json").stdout)]
    assert "path/to/fitted" in forms
