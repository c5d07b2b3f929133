"""Shapes are checked while tests run; the shared networks and images are found or the test says why not."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core, so a thread a process, and what it starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")

install_import_hook("uncannyvalley", "beartype.beartype")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent))


def shared_folder() -> Path:
    return Path(os.environ.get("UNCANNY_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real networks and images; skipped without it, failed where CI requires it."""
    folder = shared_folder()
    if not (folder / "models" / "load_reference.py").is_file():
        reason = f"no shared networks and images at {folder} (set UNCANNY_SHARED)"
        if os.environ.get("UNCANNY_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def load_network(shared: Path) -> Callable[[str], nn.Module]:
    """The loader of the shared networks, by name."""
    spec = importlib.util.spec_from_file_location("load_reference", shared / "models" / "load_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load


@pytest.fixture(scope="session")
def cifar(shared: Path) -> tuple[Tensor, Tensor]:
    """The lossless CIFAR-10 test images and their labels."""
    from uncannyvalley import data

    images = data.load(f"parquet:{shared}/data/cifar10/test.parquet")
    return images[:], images.labels


@pytest.fixture(scope="session")
def correct_cifar(
    load_network: Callable[[str], nn.Module], cifar: tuple[Tensor, Tensor]
) -> tuple[nn.Module, Tensor, Tensor]:
    """ResNet-20 and 64 images that it classifies correctly."""
    net = load_network("cifar10_resnet20")
    x, y = cifar[0][:80], cifar[1][:80]
    with torch.no_grad():
        correct = net(x).argmax(dim=1) == y
    return net, x[correct][:64], y[correct][:64]


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The demo network of the tests is trained in the tests, not taken from the user's cache."""
    os.environ["UNCANNY_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def small_net() -> nn.Module:
    """A random convolutional network with batch norm for 1 x 6 x 6 images and 4 classes, evaluation mode."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    with torch.no_grad():
        net(torch.rand(64, 1, 6, 6))  # running statistics that are not the trivial ones
    return net.eval()


@pytest.fixture
def small_images() -> tuple[Tensor, Tensor]:
    """Twelve images for ``small_net``, with labels."""
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(12, 1, 6, 6, generator=generator)
    return x, torch.randint(0, 4, (12,), generator=generator)
