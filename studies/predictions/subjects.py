"""The networks of the study, their walks, and what predictions read of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn
from training.judging import RADII
from training.networks import Trained, test_images
from training.walks import logits_of, pgd_walk

import uncannyvalley as uv
from uncannyvalley import zoo
from uncannyvalley.data import Images

STEPS = 20
"""Of 2.5 eps / STEPS each, without random start, so that row 0 is the clean image and no step jumps."""

CIFAR_EPS = tuple(eps / 255 for eps in (1, 2, 4, 8, 16, 32))
MNIST_EPS = (0.05, 0.1, 0.2, 0.3, 0.4)

SHARED = {
    "cifar10_resnet20": "standard",
    "cifar10_resnet32": "standard",
    "cifar10_marabou_small": "standard",
    "cifar10_marabou_medium": "standard",
    "cifar10_resnet2b_adv": "robust",
    "cifar10_cnn_a_adv": "robust",
    "cifar10_conv_small_pgd": "robust",
    "cifar10_oval_base": "robust",
    "mnist_conv_small_nat": "standard",
    "mnist_cnn_a_adv": "robust",
}
"""Kind by how they were trained, or, where that is not told, by accuracy under PGD (the shared models' readme)."""


@dataclass(frozen=True)
class Walk:
    """One recorded walk, (examples, rows) each; row 0 is the clean image.

    gap    z_t − max_{s≠t} z_s of the class t predicted there, nats: |margin| where the true class comes second
    odds   log p_t/(1 − p_t)
    top    the predicted class
    """

    eps: float
    log_kappa: np.ndarray
    log_norm: np.ndarray
    gap: np.ndarray
    margin: np.ndarray
    confidence: np.ndarray
    odds: np.ndarray
    top: np.ndarray
    wrong: np.ndarray

    @property
    def right_at_first(self) -> np.ndarray:
        return ~self.wrong[:, 0]


@dataclass(frozen=True)
class Subject:
    """A network with its walks. ``group`` names those that are compared: one data set, one set of images."""

    name: str
    kind: str
    group: str
    weight: np.ndarray
    walks: tuple[Walk, ...]

    @cached_property
    def images(self) -> int:
        return len(self.walks[0].gap)


def as_walk(trajectory: uv.Trajectory, eps: float) -> Walk:
    """What predictions read of a trajectory."""
    logits = np.sort(logits_of(trajectory), axis=2)
    gap = logits[:, :, -1] - logits[:, :, -2]
    rivals = np.exp(logits[:, :, :-1] - logits[:, :, -2:-1]).sum(axis=2)
    return Walk(
        eps=eps,
        log_kappa=trajectory.column("log_relative_sharpness"),
        log_norm=np.log(trajectory.column("feature_norm")),
        gap=gap,
        margin=trajectory.column("margin"),
        confidence=trajectory.column("confidence"),
        odds=gap - np.log(rivals),
        top=trajectory.column("predicted").astype(int),
        wrong=trajectory.column("adversarial") == 1,
    )


def subject(
    name: str,
    kind: str,
    group: str,
    net: nn.Module,
    images: Images,
    radii: Sequence[float],
    folder: Path,
    *,
    deep: tuple[float, int] | None = None,
) -> Subject:
    """A network walked at all radii, and last to ``deep``, a radius and its steps; from the folder where that was done before."""
    x, y = images[:], images.labels
    walks = [as_walk(pgd_walk(net, x, y, eps, STEPS, folder), eps) for eps in radii]
    if deep is not None:
        eps, steps = deep
        walks.append(as_walk(pgd_walk(net, x, y, eps, steps, folder), eps))
    weight = uv.split(net, x[:2]).head.weight.detach().double().numpy()
    return Subject(name, kind, group, weight, tuple(walks))


def shared_subject(name: str, shared: Path, cache: Path) -> Subject:
    """One of the shared networks on the first test images of its data set."""
    dataset, kind = name.split("_")[0], SHARED[name]
    with torch.no_grad():
        net = zoo.load(f"{shared}/models/load_reference.py:load", {"name": name})
    radii = CIFAR_EPS if dataset == "cifar10" else MNIST_EPS
    return subject(
        name.split("_", 1)[1], kind, dataset, net, test_images(dataset, shared), radii, cache / "walks" / name
    )


def trained_subject(
    one: Trained, shared: Path, cache: Path, *, deep: tuple[float, int] | None = None
) -> Subject:
    """A network of the study of training, at that study's radii; its group is apart from that of the shared networks."""
    return subject(
        f"{one.name} {one.seed}", one.kind, f"{one.dataset} (trained here)", one.network(), test_images(one.dataset, shared),
        RADII[one.dataset], cache / "walks" / one.title, deep=deep,
    )  # fmt: skip
