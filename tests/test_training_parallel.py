"""Data parallel training: two CPU processes (gloo) come to the one-process numbers, however they are started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import nn

from two_processes import RECIPE, STEPS, network, train
from uncannyvalley import data
from uncannyvalley.errors import InputError
from uncannyvalley.train import engine
from uncannyvalley.train.fitted import Fitted
from uncannyvalley.train.fitting import fit
from uncannyvalley.train.history import LOG_FILE, read_log
from uncannyvalley.train.objectives import Cost, Loss, Objective, erm
from uncannyvalley.train.recipe import Recipe

SCRIPT = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def alone() -> Fitted:
    return train(1)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fitted, Path, list[int], str]:
    """Two processes that ``fit`` starts: what it returns, its folder, the progress it told, and its environment."""
    folder = tmp_path_factory.mktemp("together")
    told: list[int] = []
    return (
        train(2, folder, lambda done, steps, losses: told.append(done)),
        folder,
        told,
        str(sorted(os.environ)),
    )


def test_two_processes_reach_the_loss_of_one(
    alone: Fitted, together: tuple[Fitted, Path, list[int], str]
) -> None:
    fitted, folder, told, _ = together
    assert len(fitted.history) == len(alone.history) == 3
    for one, two in zip(alone.history, fitted.history, strict=True):
        assert two["step"] == one["step"]
        assert two["total"] == pytest.approx(one["total"], rel=1e-6)
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
        assert two["clean_accuracy"] == one["clean_accuracy"]
        assert two["robust_accuracy"] == one["robust_accuracy"]
    for one_weights, two_weights in zip(alone.network.parameters(), fitted.network.parameters(), strict=True):
        torch.testing.assert_close(two_weights, one_weights, rtol=1e-4, atol=1e-6)
    assert read_log(folder / LOG_FILE) == list(fitted.history)
    assert told[-1] == STEPS
    assert fitted.key != alone.key


def test_nothing_is_left_in_the_environment(together: tuple[Fitted, Path, list[int], str]) -> None:
    assert "MASTER_PORT" not in together[3]
    assert not torch.distributed.is_initialized()


def test_torchrun_is_taken_as_it_is_and_a_killed_training_goes_on(
    together: tuple[Fitted, Path, list[int], str], tmp_path: Path
) -> None:
    """Both processes die in the middle; started anew by torchrun they end with the bits of the undisturbed ones."""
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import two_processes as two\n"
        "def die(done, steps, losses):\n"
        "    if done >= 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "if __name__ == '__main__': two.train(2, Path(sys.argv[2]), die)\n"
    )
    script = tmp_path / "killed.py"
    script.write_text(code)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = [sys.executable, str(script), str(SCRIPT.parent), str(tmp_path / "run")]
    died = subprocess.run(run, env=environment, stderr=subprocess.DEVNULL, timeout=200, check=False)
    assert died.returncode == -signal.SIGKILL
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [*torchrun, str(SCRIPT), str(tmp_path / "run")],
        env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert sorted(ended.stdout.splitlines()) == ["0 3", "1 3"]
    _, folder, _, _ = together
    for name in (LOG_FILE, "network.safetensors", "plan.toml"):
        assert (tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes(), name


def test_what_one_process_refuses_is_refused_in_words() -> None:
    images = data.digits("train").first(120)
    recipe = Recipe(epochs=9, batch_size=40, learning_rate=1e3, schedule="constant")
    with pytest.raises(InputError, match="training diverged at step"):
        fit(network(), images, None, erm("squared"), recipe, devices=2, accelerator="cpu")


def test_an_objective_that_cannot_be_sent_is_named() -> None:
    def loss(*given: object) -> Loss:
        raise AssertionError

    objective = Objective("mine", {}, loss, Cost(1, 1))
    with pytest.raises(InputError, match="to which the network and the objective are sent"):
        fit(network(), data.digits("train").first(60), None, objective, RECIPE, devices=2, accelerator="cpu")


def test_an_unguarded_script_ends_with_the_reason(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import two_processes; two_processes.train(2)\n"
    )
    run = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert 'keep what the script does under if __name__ == "__main__":' in run.stderr


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    images = data.digits("train").first(120)
    with pytest.raises(InputError, match="batch_size 41, of all devices together, is not a multiple of 2"):
        fit(network(), images, None, erm(), Recipe(batch_size=41), devices=2, accelerator="cpu")


def test_fewer_processes_than_asked_for_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that runs one process where two were asked for must not pass for two."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    fabric = engine.make_fabric("cpu", 1, "32-true")
    with pytest.raises(InputError, match="2 processes were to train together, but 1 do"):
        engine.check_world(fabric, 2)
    monkeypatch.setattr(engine, "started_outside", lambda: 2)
    with pytest.raises(InputError, match="torchrun started 2 processes, but devices=1"):
        engine.make_fabric("cpu", 1, "32-true")


def test_batch_norm_trains_on_two_processes() -> None:
    """Running statistics are those of the first process at each step; the network that comes back is whole."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    fitted = fit(
        net, data.digits("train").first(120), None, erm(), Recipe(epochs=2, batch_size=40), devices=2, accelerator="cpu"
    )  # fmt: skip
    assert int(fitted.network[2].num_batches_tracked) == fitted.best["step"]
