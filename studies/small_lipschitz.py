"""How much of the true robustness a certificate sees, on a network that is built to be 1-Lipschitz.

    pip install deel-torchlip
    python studies/small_lipschitz.py --shared ../shared

Trains three orthogonal layers with GroupSort (deel-torchlip; Anil et al. 2019) on MNIST with a hinge loss on the
flip distance, certifies test images, and attacks each with L2 PGD at growing radii. Prints the accuracy, the
constant, and the medians of certified and attacked radius with their ratio (1 would be a perfect certificate).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import data
from uncannyvalley.theory.certificate import certify
from uncannyvalley.theory.lipschitz import Lipschitz, lipschitz_bound

RADII = 0.1 * 1.1 ** np.arange(48)
"""L2 radii tried, 0.1 to about 9: an attacked radius is known to 10 %, from above."""


def network(width: int) -> nn.Sequential:
    from deel import torchlip

    return nn.Sequential(
        nn.Flatten(),
        torchlip.SpectralLinear(784, width), torchlip.GroupSort2(),
        torchlip.SpectralLinear(width, width), torchlip.GroupSort2(),
        torchlip.SpectralLinear(width, width), torchlip.GroupSort2(),
        nn.Linear(width, 10),
    )  # fmt: skip


def hinge_on_distance(logits: Tensor, y: Tensor, head: nn.Linear, wanted: float) -> Tensor:
    """Mean over wrong classes of max(0, wanted − (z_y − z_s)/|w_y − w_s|)."""
    lengths = torch.cdist(head.weight, head.weight)[y].clamp(min=1e-6)
    distances = (logits.gather(1, y[:, None]) - logits) / lengths
    others = torch.ones_like(logits).scatter(1, y[:, None], 0)
    return ((wanted - distances).clamp(min=0) * others).sum(dim=1).mean()


def train(net: nn.Sequential, x: Tensor, y: Tensor, epochs: int, wanted: float) -> None:
    head = net[-1]
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    draws = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(x), generator=draws).split(256):
            loss = hinge_on_distance(net(x[rows]), y[rows], head, wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(rows)
        schedule.step()
        print(f"epoch {epoch + 1:3}: loss {total / len(x):.4f}", flush=True)


def attacked_radii(net: nn.Module, x: Tensor, y: Tensor, steps: int) -> np.ndarray:
    """The smallest radius of the grid at which PGD flips each image; inf where none does."""
    found = np.full(len(x), np.inf)
    for radius in RADII:
        left = np.flatnonzero(np.isinf(found))
        if len(left) == 0:
            break
        attack = uv.attacks.pgd("l2", eps=float(radius), step_size=float(radius) / 5)
        walked = uv.record(net, x[left], y[left], attack, steps=steps, measures=["margin"])
        found[left[(walked.column("adversarial") == 1).any(axis=1)]] = radius
    return found


def report(constant: Lipschitz, certified: np.ndarray, attacked: np.ndarray) -> None:
    print(constant)
    low, high = np.median(certified), np.median(attacked)
    print(f"median certified radius {low:.3f}, attacked {high:.3f}, ratio of medians {low / high:.3f}")
    print(f"median ratio of an image {np.median(certified / attacked):.3f}")
    print(f"certificates broken: {int((attacked < certified).sum())} of {len(certified)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--wanted", type=float, default=2.0, help="distance that training asks for")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.manual_seed(0)
    known = data.load(f"parquet:{options.shared}/data/mnist/train.parquet")
    tests = data.load(f"parquet:{options.shared}/data/mnist/test.parquet")
    net = network(options.width)
    train(net, known[:], known.labels, options.epochs, options.wanted)
    net.eval()
    x, y = tests[: options.images], tests.labels[: options.images]
    with torch.no_grad():
        print(f"test accuracy {(net(tests[:]).argmax(dim=1) == tests.labels).double().mean():.4f}")
        correct = net(x).argmax(dim=1) == y
    x, y = x[correct], y[correct]
    constant = lipschitz_bound(net, x)
    report(
        constant,
        certify(net, x, y, lipschitz=constant).value.numpy(),
        attacked_radii(net, x, y, options.steps),
    )


if __name__ == "__main__":
    main()
