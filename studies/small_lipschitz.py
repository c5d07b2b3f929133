"""How much of the true robustness a certificate sees, on a network that is built to be 1-Lipschitz.

    pip install -e ".[lipschitz]"
    python studies/small_lipschitz.py --shared ../shared --peers build/peers

Trains three orthogonal layers with GroupSort (deel-torchlip; Anil et al. 2019) on MNIST with a hinge loss on the
flip distance, certifies test images, and attacks each: PGD in twelve L2 balls and, with --peers, foolbox's DDN; the
nearest flip counts. Prints the accuracy, the constant, and the medians of certified and attacked radius with their
ratio (1 would be a perfect certificate).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from certificates_hold import distances_by_ddn
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import data


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


def report(constant: object, certified: np.ndarray, attacked: np.ndarray) -> None:
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
    parser.add_argument("--peers", type=Path, help="folder with foolbox")
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
    constant = uv.lipschitz_bound(net, x)
    certified = uv.certify(net, x, y, lipschitz=constant).value
    attacked = uv.attacked_radius(net, x, y, steps=options.steps).value
    if options.peers:
        sys.path.append(str(options.peers.resolve()))
        attacked = torch.minimum(attacked, distances_by_ddn(net, x, y, 5 * options.steps))
    report(constant, certified.numpy(), attacked.numpy())


if __name__ == "__main__":
    main()
