"""Example 3. Do attacked images lie where the loss is sharper, or where it is flatter, than clean ones?

The field's first experiment: a small convolutional network, trained here on MNIST, and the relative sharpness κ of test
images as they are, under noise, under FGSM (one step) and under PGD (40 steps), all within Linf 0.3. Prints for each the
share that is misclassified and the quantiles of log κ, and how often the usual float32 formula returns a κ that is not
above zero; draws the distributions. The answer depends on when the attack stops: so the last lines follow PGD step by step.
About 25 s on one core.

    python examples/03_small_cnn_on_mnist.py                      # MNIST in ../shared/data/mnist
    python examples/03_small_cnn_on_mnist.py --train hf:mnist:train --test hf:mnist:test
"""

import numpy as np
import torch
from materials import COLOURS, in_shared, parser_of, quick, right_ones, run, save
from matplotlib.figure import Figure
from torch import Tensor, nn

import uncannyvalley as uv

EPS, STEPS = 0.3, quick(40, 20)
STEP_SIZE = 0.4 / STEPS
IMAGES, EPOCHS, WALKED = quick(16_000, 3_000), quick(6, 3), quick(256, 64)


def main() -> None:
    parser = parser_of(__doc__, shared=True)
    parser.add_argument("--train", help="training images: parquet:…, npz:…, folder:…, hf:NAME:SPLIT")
    parser.add_argument("--test", help="test images, likewise")
    given = parser.parse_args()
    train, test = (
        uv.data.load(spec or f"parquet:{in_shared(given.shared, f'data/mnist/{part}.parquet', f'--{part}')}")
        for part, spec in (("train", given.train), ("test", given.test))
    )
    if (shape := tuple(train[:1].shape[1:])) != (1, 28, 28):
        raise uv.InputError(
            f"this network takes grey images of 28 x 28, (1, 28, 28); those of --train are {shape}"
        )
    net = trained(train[:IMAGES], train.labels[:IMAGES])
    with torch.no_grad():
        accuracy = (net(test[:2000]).argmax(dim=1) == test.labels[:2000]).float().mean()
    print(f"Trained on {len(train[:IMAGES])} images; accuracy on 2000 test images: {accuracy:.1%}")

    x, y = right_ones(net, test.first(1000), WALKED)
    model = uv.split(net, x)
    ball = {"eps": EPS, "step_size": STEP_SIZE}
    pgd = uv.record(model, x, y, uv.attacks.pgd(**ball), steps=STEPS)
    noise = uv.record(model, x, y, uv.attacks.noise(**ball), steps=STEPS)
    fgsm = uv.record(model, x, y, uv.attacks.fgsm(eps=EPS), steps=1)
    ends = {"clean": (pgd, 0), "noise": (noise, -1), "fgsm": (fgsm, -1), "pgd": (pgd, -1)}

    print(f"\n{'':8}{'wrong':>7} {'log κ 10 %':>11} {'median':>7} {'90 %':>7}")
    for name, (walk, row) in ends.items():
        low, median, high = np.percentile(walk.column("log_relative_sharpness")[:, row], [10, 50, 90])
        wrong = walk.column("adversarial")[:, row].mean()
        print(f"{name:8}{wrong:7.1%} {low:11.2f} {median:7.2f} {high:7.2f}")

    print("\nMedian log κ along PGD, and the share misclassified:")
    for step in sorted({0, 1, 2, 4, 6, 8, 12, 16, 20, 30, STEPS} & set(range(STEPS + 1))):
        kappa = np.median(pgd.column("log_relative_sharpness")[:, step])
        print(f"step {step:2}: {kappa:7.2f} {pgd.column('adversarial')[:, step].mean():7.1%}")
    print(
        f"\nClean test images whose κ the usual formula, in float32, returns as 0 or less: {lost(net, test[:2000]):.1%}"
    )
    save(drawn(ends), given.out, "03_small_cnn_on_mnist.png")


def trained(x: Tensor, y: Tensor) -> nn.Module:
    """Two convolutions and two linear layers, AdamW, a one-cycle learning rate."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters())
    batches = len(x) // 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=EPOCHS * batches)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x))[: 64 * batches].split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def lost(net: nn.Module, x: Tensor) -> float:
    """Share of images whose κ = |φ|² (Σ p_s |w_s|² − |Σ p_s w_s|²) vanishes or turns negative in float32."""
    weight = net[-1].weight
    with torch.no_grad():
        features = net[:-1](x)
        p = net[-1](features).softmax(dim=1)
        variance = p @ weight.square().sum(dim=1) - (p @ weight).square().sum(dim=1)
        return (features.square().sum(dim=1) * variance <= 0).double().mean().item()


def drawn(ends: dict[str, tuple[uv.Trajectory, int]]) -> Figure:
    """One histogram for each kind of image over the same bins."""
    values = {name: walk.column("log_relative_sharpness")[:, row] for name, (walk, row) in ends.items()}
    together = np.concatenate(list(values.values()))
    bins = np.linspace(together.min(), together.max(), 40)
    figure = Figure(figsize=(8, 6), layout="constrained")
    panels = figure.subplots(len(values), 1, sharex=True, sharey=True)
    for axes, (name, ours) in zip(panels, values.items(), strict=True):
        axes.hist(ours, bins, color=COLOURS[name], alpha=0.75)
        axes.axvline(np.median(ours), color=COLOURS[name], linewidth=2)
        axes.set_ylabel(name)
    panels[0].set_title(
        f"log κ of {len(ours)} test images and what became of them; lines are medians", loc="left"
    )
    panels[-1].set_xlabel("log κ (nats): left is flat, right is sharp")
    return figure


if __name__ == "__main__":
    run(main)
