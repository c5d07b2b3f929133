"""The networks that the study's plans train, found in the cache where their training is finished."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from uncannyvalley import data, zoo
from uncannyvalley.data import Images
from uncannyvalley.train.plan_file import TrainingCell, read_trainings

PLANS = Path(__file__).parent / "plans"

GRIDS = ("digits", "digits-cosine", "mnist-seeds", "mnist", "mnist-cosine", "cifar10", "cifar10-robust")
"""Plan files of the study, each in a folder of the same name in the cache; the sweep is not part of its tables."""

DONE = ("result.json", "network.safetensors")
"""What a finished training left behind."""

ADVERSARIAL = ("pgd-at", "trades")

CHECKED = 250
"""Test images of a data set, or all that there are."""

TRAINED_EPS = {"digits": 0.15, "mnist": 0.1, "cifar10": 8 / 255}
"""The radius that networks of a data set are trained and judged at."""


@dataclass(frozen=True)
class Trained:
    """One finished training. ``name``: its objective, with "cosine " in front where its head is one."""

    name: str
    dataset: str
    seed: int
    folder: Path

    @property
    def title(self) -> str:
        """Its folder among those of the walks."""
        return f"{self.dataset}-{self.name.replace(' ', '-')}-{self.seed}"

    @property
    def kind(self) -> str:
        """Robust where the base objective is adversarial."""
        return "robust" if self.name.removeprefix("cosine ").startswith(ADVERSARIAL) else "standard"

    @property
    def is_cosine(self) -> bool:
        return self.name.startswith("cosine ")

    @property
    def is_squared(self) -> bool:
        return self.name == "squared"

    def network(self) -> nn.Module:
        """As ``--model FOLDER`` gives it: evaluation mode, a plain linear head."""
        return zoo.load(str(self.folder))


def finished(cache: Path) -> Iterator[Trained]:
    """Every finished training of the plans, plan by plan; those that are not there are left out."""
    for grid in GRIDS:
        cells = planned_in(grid)
        for cell in cells:
            folder = cache / "networks" / grid / (cell.place if len(cells) > 1 else "")
            if all((folder / name).exists() for name in DONE):
                name = cell.labels["objective"]
                titled = f"cosine {name}" if cell.labels["model"] == "cosine" else name
                yield Trained(titled, cell.labels["data"], int(cell.labels["seed"]), folder)


def planned_in(grid: str) -> list[TrainingCell]:
    """The trainings of a plan."""
    return read_trainings(PLANS / f"{grid}.toml").cells()


def planned() -> int:
    """Trainings of all plans together."""
    return sum(len(planned_in(grid)) for grid in GRIDS)


@lru_cache
def test_images(dataset: str, shared: Path) -> Images:
    """Test images of a data set, the first CHECKED."""
    if dataset == "digits":
        return data.digits("test").first(CHECKED)
    return data.load(f"parquet:{shared}/data/{dataset}/test.parquet").first(CHECKED)


def accuracy(net: nn.Module, images: Images) -> float:
    """Share of the images whose most probable class is their label."""
    with torch.no_grad():
        return (net(images[:]).argmax(dim=1) == images.labels).double().mean().item()
