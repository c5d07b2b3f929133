"""A training that was killed, at whatever moment, ends as the undisturbed one: the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from full_disk import no_file_grows_beyond
from killed_trainings import CASES, STEPS, network, train
from uncannyvalley.errors import InputError
from uncannyvalley.storing.files import CannotWrite
from uncannyvalley.train.checkpoint import CHECKPOINT_FILE, Checkpoint
from uncannyvalley.train.history import LOG_FILE, read_log
from uncannyvalley.train.plan import PLAN_FILE, read_plan
from uncannyvalley.zoo.fitted import NETWORK_FILE

SCRIPT = Path(__file__).parent / "killed_trainings.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case, in CASE/whole undisturbed and in CASE/killed with several deaths."""
    folder = tmp_path_factory.mktemp("killed")
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    deaths = dict(line.split() for line in run.stdout.splitlines())
    assert set(deaths) == set(CASES)
    assert all(int(count) >= 4 for count in deaths.values()), deaths
    return folder


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint.read(folder / CHECKPOINT_FILE, read_plan(folder / PLAN_FILE)["key"])


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("case", CASES)
def test_a_killed_training_ends_with_the_same_bits(trained: Path, case: str) -> None:
    whole, killed = trained / case / "whole", trained / case / "killed"
    for name in (LOG_FILE, NETWORK_FILE, PLAN_FILE):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    expected, found = checkpoint(whole), checkpoint(killed)
    assert found.done == expected.done == STEPS
    assert same(found.weights, expected.weights)
    assert same(found.best, expected.best)
    assert found.history == expected.history == read_log(whole / LOG_FILE)
    assert found.schedule == expected.schedule
    assert found.optimizer["param_groups"] == expected.optimizer["param_groups"]
    kept, wanted = found.optimizer["state"], expected.optimizer["state"]
    assert kept.keys() == wanted.keys()
    assert len(wanted) == len(list(network().parameters()))
    assert all(same(kept[number], wanted[number]) for number in wanted)
    assert {one.name for one in killed.iterdir()} == {one.name for one in whole.iterdir()}


def test_a_finished_training_is_not_trained_again(trained: Path) -> None:
    folder = trained / "momentum" / "whole"
    before = {one.name: one.stat().st_mtime_ns for one in folder.iterdir()}
    steps: list[int] = []
    again = train("momentum", folder, lambda done, total, losses: steps.append(done))
    assert steps == []
    assert list(again.history) == read_log(folder / LOG_FILE)
    assert before == {one.name: one.stat().st_mtime_ns for one in folder.iterdir()}


def test_what_can_be_made_from_the_checkpoint_is_made_again(trained: Path) -> None:
    folder = trained / "adamw" / "killed"
    weights, log = (folder / NETWORK_FILE).read_bytes(), (folder / LOG_FILE).read_bytes()
    damaged = bytearray(weights)
    damaged[-5] ^= 1
    (folder / NETWORK_FILE).write_bytes(bytes(damaged))
    (folder / LOG_FILE).unlink()
    train("adamw", folder)
    assert (folder / NETWORK_FILE).read_bytes() == weights
    assert (folder / LOG_FILE).read_bytes() == log


@pytest.mark.parametrize("place", [0.02, 0.5, 0.999])
def test_a_flipped_bit_is_named_and_nothing_is_trained(trained: Path, place: float) -> None:
    folder = trained / "pgd-at" / "killed"
    file = folder / CHECKPOINT_FILE
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[int(place * len(content))] ^= 4
    file.write_bytes(bytes(flipped))
    try:
        with pytest.raises(InputError, match=f"{CHECKPOINT_FILE} is damaged"):
            train("pgd-at", folder)
        assert file.read_bytes() == bytes(flipped)
    finally:
        file.write_bytes(content)


def test_an_edited_plan_is_named(trained: Path) -> None:
    file = trained / "sam" / "killed" / PLAN_FILE
    content = file.read_bytes()
    file.write_bytes(content.replace(b"batch_size = 16", b"batch_size = 18"))
    with pytest.raises(InputError, match="was damaged, or edited"):
        train("sam", file.parent)
    file.write_bytes(content)


def test_a_full_disk_loses_nothing(trained: Path, tmp_path: Path) -> None:
    """The disk is full at a checkpoint in the middle of an epoch; with space again it goes on from the one before."""

    class Stop(Exception):
        pass

    def stop(done: int, total: int, losses: dict[str, float]) -> None:
        if done == 4:
            raise Stop

    torch.set_num_threads(1)
    with pytest.raises(Stop):
        train("momentum", tmp_path, stop)
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    assert checkpoint(tmp_path).done == 3
    with no_file_grows_beyond(8000), pytest.raises(CannotWrite, match="cannot write"):
        train("momentum", tmp_path)
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))
    train("momentum", tmp_path)
    assert (tmp_path / LOG_FILE).read_bytes() == (trained / "momentum" / "whole" / LOG_FILE).read_bytes()
