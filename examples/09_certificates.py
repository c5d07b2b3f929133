"""Example 9. What can be proved about a network, and how far is that from what an attack finds?

Two small networks are trained on digits: a plain one, and one whose layers are orthogonal, so that its features never
move further than the pixels do. For each, a certified Lipschitz constant L of the features, the radius inside which
nothing changes the label (exact flip distance at the head over L), and the distance at which an attack did change it.
Then the bound on the loss from flatness, L and the third derivative, against an L2 walk of PGD. Prints how near each
promise comes, and how often it was broken: never is the only right answer. About 15 s on one core.

    python examples/09_certificates.py
"""

import numpy as np
import torch
from materials import COLOURS, parser_of, quick, right_ones, run, save
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import uncannyvalley as uv
from uncannyvalley.theory.loss_bound import head_diameter, loss_change_bound

COUNT, EPOCHS, STEPS = quick(128, 32), quick(60, 30), 20


class PairSort(nn.Module):
    """Sorts neighbouring features in pairs: like ReLU it bends, unlike ReLU it keeps all lengths.

    Anil et al. 2019, arXiv 1811.05381.
    """

    def forward(self, features: Tensor) -> Tensor:
        pairs = features.unflatten(-1, (-1, 2))
        return torch.cat([pairs.amax(dim=-1), pairs.amin(dim=-1)], dim=-1)


def main() -> None:
    given = parser_of(__doc__).parse_args()
    train, test = uv.data.load("digits:train"), uv.data.load("digits")
    networks = {"plain": plain(), "orthogonal": orthogonal()}
    radii = {}
    print(f"{'':12}{'accuracy':>9}{'L':>10}{'certified':>11}{'attacked':>10}{'ratio':>7}{'broken':>8}")
    for name, net in networks.items():
        fit(net, train[:], train.labels)
        with torch.no_grad():
            accuracy = (net(test[:]).argmax(dim=1) == test.labels).double().mean()
        x, y = right_ones(net, test, COUNT)
        constant = uv.lipschitz_bound(net, x)
        certified = uv.certify(net, x, y, lipschitz=constant).value.numpy()
        attacked = uv.attacked_radius(net, x, y).value.numpy()
        radii[name] = certified, attacked
        print(f"{name:12}{accuracy:9.1%}{constant.value:10.3g}{np.median(certified):11.3f}{np.median(attacked):10.3f}"
              f"{np.median(certified / attacked):7.0%}{int((attacked < certified).sum()):8}")  # fmt: skip
    print("(radii are medians, L2 over all pixels; certified has status "
          f"{uv.certify(networks['plain'], x, y).status!r})")  # fmt: skip
    for name, net in networks.items():
        x, y = right_ones(net, test, COUNT)
        print_loss_bound(name, net, x, y)
    save(drawn(radii), given.out, "09_certificates.png")


def print_loss_bound(name: str, net: nn.Module, x: Tensor, y: Tensor) -> None:
    """ρ g + ρ² κ/(2|φ|²) + ρ³ D³/(36√3) with ρ = L|δ| against the change of the loss at each step."""
    model = uv.split(net, x)
    walk = uv.record(model, x, y, uv.attacks.pgd("l2", eps=0.5, step_size=0.5 / STEPS), steps=STEPS)
    slope, kappa, norm, loss, distance = (
        walk.column(one)
        for one in ("feature_gradient_norm", "log_relative_sharpness", "feature_norm", "loss", "distance_l2")
    )
    variance = np.exp(kappa[:, :1]) / norm[:, :1] ** 2
    bound = loss_change_bound(
        slope[:, :1], variance, head_diameter(model.head), uv.lipschitz_bound(net, x).value, distance[:, 1:]
    ).numpy()
    change = loss[:, 1:] - loss[:, :1]
    first = f"{np.median(change[:, 0]):.3g} of {np.median(bound[:, 0]):.3g}"
    last = f"{np.median(change[:, -1]):.3g} of {np.median(bound[:, -1]):.3g}"
    print(f"Loss of {name}: rises by {first} nats allowed at distance {distance[0, 1]:.3f}, {last} at "
          f"{np.median(distance[:, -1]):.2f}; bound passed {int((change > bound).sum())} times in {change.size}")  # fmt: skip


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def orthogonal() -> nn.Module:
    """Its body never stretches; only the head may. Orthogonal matrices: torch.nn.utils.parametrizations."""
    torch.manual_seed(0)
    first, second = (parametrizations.orthogonal(nn.Linear(64, 64)) for _ in range(2))
    return nn.Sequential(nn.Flatten(), first, PairSort(), second, PairSort(), nn.Linear(64, 10))


def fit(net: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[chosen]), y[chosen]).backward()
            optimizer.step()
    net.eval()


def drawn(radii: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """One point an image: no point may lie above the diagonal."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    largest = max(
        attacked[np.isfinite(attacked)].max() for _, attacked in radii.values()
    )  # inf: never flipped
    axes.fill_between([0, largest], [0, largest], largest, color="#EEEEEE")
    axes.text(0.3 * largest, 0.7 * largest, "would break the promise", ha="center", color="#777777")
    for (name, (certified, attacked)), colour in zip(radii.items(), ("pgd", "assist"), strict=True):
        axes.scatter(attacked, certified, s=12, color=COLOURS[colour], label=name)
    axes.set(xlabel="L2 distance at which PGD flipped the label", ylabel="certified radius")
    axes.set(xlim=(0, largest), ylim=(0, largest))
    axes.legend(frameon=False, loc="upper left")
    return figure


if __name__ == "__main__":
    run(main)
