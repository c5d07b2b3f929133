"""What training refuses, and in which words."""

import sys
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from uncannyvalley.data.images import Images
from uncannyvalley.errors import InputError
from uncannyvalley.train.fitting import fit
from uncannyvalley.train.objectives import erm
from uncannyvalley.train.recipe import Recipe


@pytest.fixture(autouse=True)
def _as_users_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the tests' checks of annotations, which would come first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def images(count: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg'; did you mean 'sgd'"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"selection": "best"}, "unknown selection 'best'"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number above 0, got nan"),
        ({"learning_rate": "0.1"}, "learning_rate must be a finite number above 0, got '0.1'"),
        ({"momentum": 1}, "momentum must be a finite number above 0 and below 1, got 1"),
        ({"weight_decay": -1}, "weight_decay must be a finite number of at least 0, got -1"),
        ({"clip": 0}, "clip must be a finite number above 0, got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        (
            {"validation_share": 1},
            "validation_share must be a finite number of at least 0 and below 1, got 1",
        ),
        ({"selection": "robust"}, "selection by robust accuracy needs the attack at validation: give eps"),
        ({"norm": "l3"}, "l3"),
        ({"eps": -0.1}, "eps"),
        ({"augmentation": True}, "augmentation is an Augmentation"),
        ({"random_start": 1}, "random_start is true or false, got 1"),
        ({"checkpoint_steps": 0}, "checkpoint_steps must be a whole number of at least 1, got 0"),
        ({"checkpoint_every": -1}, "checkpoint_every must be a finite number of at least 0, got -1"),
    ],
)
def test_recipes(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        Recipe(**fields)
    assert words in str(caught.value)


def test_one_and_one_point_zero_are_one_recipe() -> None:
    assert Recipe(learning_rate=1) == Recipe(learning_rate=1.0)
    assert repr(Recipe(learning_rate=1)) == repr(Recipe(learning_rate=1.0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"net": "net"}, "net must be a torch.nn.Module"),
        ({"net": net().requires_grad_(False)}, "no weight of the network requires a gradient"),
        ({"net": net().double()}, "give precision='64-true'"),
        ({"net": nn.Flatten()}, "no weight of the network"),
        ({"net": nn.Sequential(nn.Flatten(), nn.Linear(5, 3))}, "the network failed on images of shape (1, 1, 2, 2)"),
        ({"net": nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten())}, "no linear head"),
        ({"net": nn.Sequential(nn.Flatten(), nn.Linear(4, 2))}, "y must hold classes 0 to 1"),
        ({"x": torch.rand(20, 1, 2, 2) + 1}, "x must lie in [0, 1]"),
        ({"y": torch.zeros(3).long()}, "y must have one class for each of the 20 images"),
        ({"x": Images(np.zeros((20, 1, 2, 2), np.uint8), torch.zeros(20).long())}, "leave y out"),
        ({"objective": "erm"}, "objective is one of train.objectives"),
        ({"recipe": {"epochs": 3}}, "recipe must be a Recipe, got dict"),
        ({"recipe": Recipe()}, "batch_size 128 exceeds the 18 images to train on; choose at most 18"),
        ({"recipe": Recipe(batch_size=4, validation_share=0.01)}, "leaves nothing to validate on"),
        ({"recipe": Recipe(batch_size=4, validation_share=0.0, selection="clean")}, "needs validation images"),
        ({"validation": torch.rand(3, 1, 2, 2)}, "validation is data.Images or a pair"),
        ({"head": "9"}, "unknown head '9'"),
        ({"devices": 0}, "devices must be a whole number of at least 1"),
        ({"precision": "16-mixed"}, "unknown precision '16-mixed'"),
        ({"accelerator": "abacus"}, "cannot train on accelerator='abacus'"),
        ({"loggers": ["wandb"]}, "unknown logger 'wandb'"),
        ({"loggers": ["csv"]}, "give out, or a logger of yours"),
    ],
)  # fmt: skip
def test_trainings(change: dict[str, Any], words: str) -> None:
    x, y = images()
    given: dict[str, Any] = {
        "net": net(), "x": x, "y": y, "objective": erm(), "recipe": Recipe(epochs=1, batch_size=4),
    } | change  # fmt: skip
    with pytest.raises(InputError) as caught:
        fit(**given)
    assert words in str(caught.value)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("[model]\nspec = 'demo'\n")
    x, y = images()
    with pytest.raises(InputError, match="holds something else than a training"):
        fit(net(), x, y, erm(), Recipe(epochs=1, batch_size=4), out=tmp_path)


def test_files_without_a_plan(tmp_path: Path) -> None:
    (tmp_path / "network.safetensors").write_bytes(b"mine")
    x, y = images()
    with pytest.raises(InputError, match=r"holds network\.safetensors without a plan\.toml"):
        fit(net(), x, y, erm(), Recipe(epochs=1, batch_size=4), out=tmp_path)
    assert (tmp_path / "network.safetensors").read_bytes() == b"mine"


def test_without_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.startswith("uncannyvalley.train.")]:
        if name.rpartition(".")[2] in ("running", "engine", "training"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    monkeypatch.delattr("uncannyvalley.train.running", raising=False)
    x, y = images()
    with pytest.raises(InputError, match=r"uncannyvalley\[train\]"):
        fit(net(), x, y, erm(), Recipe(epochs=1, batch_size=4))
