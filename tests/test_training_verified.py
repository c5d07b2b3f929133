"""``verify`` knows trainings: a changed byte anywhere in what a training wrote is named."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import uncannyvalley as uv
from uncannyvalley import data
from uncannyvalley.train.objectives import erm
from uncannyvalley.train.recipe import Recipe

FILES = ("plan.toml", "checkpoint.safetensors", "network.safetensors", "log.csv")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    folder = tmp_path_factory.mktemp("training") / "run"
    uv.fit(net, data.digits("train").first(60), None, erm(), Recipe(epochs=2, batch_size=20), out=folder)
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def faults(folder: Path) -> list[str]:
    return [one.message for one in uv.verify(folder)]


def test_a_training_as_it_was_written_has_no_faults(trained: Path) -> None:
    assert faults(trained) == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.3, 0.9])
def test_a_flipped_bit_is_named(copied: Path, name: str, place: float) -> None:
    content = bytearray((copied / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (copied / name).write_bytes(content)
    found = faults(copied)
    assert len(found) == 1
    # a plan whose kind is no longer to be read is no training's, and is told as a run's
    assert str(copied) in found[0]


@pytest.mark.parametrize(("name", "found"), [("checkpoint.safetensors", "is missing"), ("log.csv", "cannot be read"),
                                             ("network.safetensors", "the same command writes it")])  # fmt: skip
def test_a_missing_file_is_named(copied: Path, name: str, found: str) -> None:
    (copied / name).unlink()
    (fault,) = faults(copied)
    assert name in fault
    assert found in fault


def test_a_flipped_bit_anywhere_in_the_log_is_named(copied: Path) -> None:
    whole = (copied / "log.csv").read_bytes()
    for place in range(len(whole)):
        for bit in (1, 64):
            content = bytearray(whole)
            content[place] ^= bit
            (copied / "log.csv").write_bytes(content)
            assert faults(copied), (place, bit)


def test_what_a_killed_process_left_is_named(copied: Path) -> None:
    (copied / "log.csv.1.whole.tmp").write_text("half")
    (fault,) = faults(copied)
    assert "scratch file" in fault


def test_the_network_of_another_training_is_named(trained: Path, copied: Path, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    recipe = Recipe(epochs=1, batch_size=20)
    uv.fit(net, data.digits("train").first(60), None, erm(), recipe, out=tmp_path / "other")
    shutil.copy(tmp_path / "other" / "network.safetensors", copied)
    (fault,) = faults(copied)
    assert "of another training" in fault


def test_each_training_of_a_grid_is_read(trained: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        shutil.copytree(trained, tmp_path / f"objective=erm/seed={seed}")
    (tmp_path / "trainings.toml").write_text("")
    (tmp_path / "objective=erm/seed=1/log.csv").write_text("epoch\n1\n")
    (fault,) = faults(tmp_path)
    assert "seed=1/log.csv" in fault
