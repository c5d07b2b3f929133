"""Where the network is sure, float32 cross-entropy loses its gradient; the objective climbed here does not.

    python benchmarks/gradient_signs.py [--images 512] [--threads 1] [--json]

Of the first CIFAR-10 test images, those are taken that ResNet-20 classifies correctly with p_y == 1 in
float32. For each, the share of pixels is counted whose gradient has the sign that the float64 network gives:
for cross-entropy as one calls it (its term p_y - 1 is rounded away) and for the log loss that the attacks of
this package climb, through uncannyvalley.probe.Prober. Both point the same way in exact arithmetic. Each is
shown on the plain copy of the network and on the prepared one (batch norm folded, channels last).
Expected: about 70 % for cross-entropy, at least 99.9 % for the log loss.

The network and the images are found in the folder named by UNCANNY_SHARED, else in ../shared.
"""

import argparse
import json

import torch
from recording_cost import load_images, load_network, machine
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

import uncannyvalley
from uncannyvalley import SplitModel
from uncannyvalley.probe import Prober
from uncannyvalley.types import OBJECTIVE_GRAD

BATCH = 64


def cross_entropy_gradient(model: SplitModel, x: Tensor, y: Tensor) -> Tensor:
    """∂/∂x of F.cross_entropy, in the model's number type."""
    x = model.place(x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
    return gradient


def log_loss_gradient(model: SplitModel, x: Tensor, y: Tensor) -> Tensor:
    """∂(log loss)/∂x as the attacks here get it."""
    prober = Prober(model, x, y)
    return prober(prober.clean, {OBJECTIVE_GRAD}).objective_grad


def sure_images(model: SplitModel, count: int) -> tuple[Tensor, Tensor]:
    """Images that are classified correctly with a float32 probability of exactly 1."""
    x, y = load_images(count)
    with torch.no_grad():
        logits = torch.cat([model(model.place(part)) for part in x.split(BATCH)])
    sure = logits.softmax(dim=1).gather(1, y[:, None]).squeeze(1) == 1
    return x[sure], y[sure]


def agreement(gradient: Tensor, exact: Tensor) -> Tensor:
    """Share of pixels of each image whose signs agree; a zero agrees with a zero only."""
    return (gradient.sign() == exact.sign()).flatten(1).double().mean(dim=1)


def compare(count: int) -> tuple[int, list[dict[str, object]]]:
    """The number of sure images, and one row for each way to get the gradient."""
    net, sample = load_network(), load_images(8)[0]
    plain = uncannyvalley.split(net, sample, prepare=False)
    prepared = uncannyvalley.split(net, sample)
    double = uncannyvalley.split(load_network().double(), sample, prepare=False)
    x, y = sure_images(plain, count)
    ways = {
        ("cross-entropy", "plain"): (cross_entropy_gradient, plain),
        ("cross-entropy", "prepared"): (cross_entropy_gradient, prepared),
        ("log loss (Prober)", "plain"): (log_loss_gradient, plain),
        ("log loss (Prober)", "prepared"): (log_loss_gradient, prepared),
        ("cross-entropy", "plain, float64"): (cross_entropy_gradient, double),
    }
    shares: dict[tuple[str, str], list[Tensor]] = {way: [] for way in ways}
    for part, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
        exact = log_loss_gradient(double, part, labels)
        for way, (gradient, model) in ways.items():
            shares[way].append(agreement(gradient(model, part, labels), exact))
    rows = []
    for (objective, copy), parts in shares.items():
        every = torch.cat(parts)
        rows.append(
            {"objective": objective, "copy": copy, "mean": every.mean().item(), "worst": every.min().item()}
        )
    return len(x), rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=512, help="test images to choose from")
    parser.add_argument("--threads", type=int, help="torch's own choice where left out")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    sure, rows = compare(options.images)
    if options.json:
        print(json.dumps({"images": options.images, "sure": sure, "agreement": rows}, indent=2))
        return
    table = Table(
        title=f"gradient signs that agree with float64: {sure} of {options.images} images, p_y == 1"
    )
    for heading in ("objective", "copy of the network"):
        table.add_column(heading)
    for heading in ("mean share", "worst image"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row["objective"], row["copy"], f"{row['mean']:.3%}", f"{row['worst']:.3%}")
    console = Console()
    console.print(table)
    console.print(machine(), highlight=False)


if __name__ == "__main__":
    main()
