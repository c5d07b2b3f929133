"""Steps of training written out plainly, as papers and tutorials do: float64, torch's own losses, nothing of the package.

A network is ``body`` and ``head`` (an nn.Linear) here, so that the references can reach the features.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.nn import functional as F

Criterion = Callable[[Tensor, Tensor], Tensor]


class Small(nn.Module):
    """Convolution, batch norm, ReLU, linear, ReLU; then a linear head. For images 1 x 6 x 6 and 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5), nn.ReLU()
        )  # fmt: skip
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    net = Small().double()
    with torch.no_grad():
        net(torch.rand(32, 1, 6, 6, dtype=torch.float64))  # running statistics that are not the trivial ones
        net.head.weight.mul_(3)
    return net.train()


def images(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(count, 1, 6, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 4, (count,), generator=generator)


def squared_error(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over the batch of the summed squares."""
    wanted = torch.zeros_like(logits)
    for row, label in enumerate(y.tolist()):
        wanted[row, label] = 1.0
    return ((logits - wanted) ** 2).sum() / len(y)


# --- relative sharpness through the Hessian that it is defined by ------------------------------------


def sharpness(
    weight: Tensor, bias: Tensor | None, features: Tensor, y: Tensor, criterion: Criterion = F.cross_entropy
) -> Tensor:
    """Σ ⟨w_s, w_s'⟩ Tr H_{ss'} with H = ∂²(loss of the batch)/∂W² materialised, differentiable in all."""

    def loss(rows: Tensor) -> Tensor:
        return criterion(F.linear(features, rows, bias), y)

    second = hessian(loss, weight, create_graph=True)
    return torch.einsum("si,ti,sjtj->", weight, weight, second)


def mean_log_sharpness(weight: Tensor, bias: Tensor | None, features: Tensor, y: Tensor) -> Tensor:
    """The same for each example alone."""
    each = [sharpness(weight, bias, features[i : i + 1], y[i : i + 1]).log() for i in range(len(y))]
    return torch.stack(each).mean()


def detached_sharpness(weight: Tensor, bias: Tensor | None, features: Tensor, y: Tensor) -> Tensor:
    """As the published regulariser computes it: the Hessian enters as a constant."""

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(features, rows, bias), y)

    second = hessian(loss, weight).detach()
    return torch.einsum("si,ti,sjtj->", weight, weight, second)


# --- attacks and steps -------------------------------------------------------------------------------


def projected(x: Tensor, clean: Tensor, eps: float, norm: str) -> Tensor:
    moved = x - clean
    if norm == "linf":
        moved = moved.clamp(-eps, eps)
    else:
        for row in range(len(moved)):
            length = moved[row].norm()
            if length > eps:
                moved[row] = moved[row] * (eps / length)
    return (clean + moved).clamp(0, 1)


def ascended(
    net: nn.Module, clean: Tensor, start: Tensor, loss: Callable[[Tensor], Tensor],
    *, eps: float, step_size: float, steps: int, norm: str,
) -> Tensor:  # fmt: skip
    """PGD by hand, the network in evaluation mode meanwhile; ``loss`` of logits."""
    net.eval()
    x = start.clone()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        loss(net(x)).backward()
        gradient = x.grad
        if norm == "linf":
            direction = gradient.sign()
        else:
            direction = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        x = projected(x.detach() + step_size * direction, clean, eps, norm)
    net.train()
    net.zero_grad()
    return x.detach()


def adversarial(net: nn.Module, x: Tensor, y: Tensor, noise: Tensor, criterion: Criterion, **ball) -> Tensor:
    """Madry et al.: images at the end of PGD from a start that ``noise`` in the unit ball names."""
    start = (x + ball["eps"] * noise).clamp(0, 1)
    return ascended(net, x, start, lambda logits: criterion(logits, y), **ball)


def trades(net: nn.Module, x: Tensor, y: Tensor, noise: Tensor, beta: float, **ball) -> Tensor:
    """Zhang et al.: cross-entropy of the clean batch + β KL(clean ‖ moved)."""
    net.eval()
    with torch.no_grad():
        fixed = F.softmax(net(x), dim=1)
    start = (x + 0.001 * noise).clamp(0, 1)
    moved = ascended(
        net, x, start, lambda logits: F.kl_div(F.log_softmax(logits, dim=1), fixed, reduction="sum"), **ball
    )
    logits = net(x)
    robust = F.kl_div(F.log_softmax(net(moved), dim=1), F.softmax(logits, dim=1), reduction="batchmean")
    return F.cross_entropy(logits, y) + beta * robust


def descend(net: nn.Module, loss: Tensor, rate: float) -> None:
    """One step of plain gradient descent."""
    net.zero_grad()
    loss.backward()
    with torch.no_grad():
        for weight in net.parameters():
            weight -= rate * weight.grad


def descend_sharpness_aware(net: nn.Module, loss: Callable[[], Tensor], rho: float, rate: float) -> None:
    """Foret et al.: the gradient at θ + ρ g/|g|, applied at θ. Batch statistics are those of the first pass."""
    net.zero_grad()
    loss().backward()
    length = torch.stack([weight.grad.norm() for weight in net.parameters()]).norm()
    before = [weight.detach().clone() for weight in net.parameters()]
    statistics = [buffer.clone() for buffer in net.buffers()]
    with torch.no_grad():
        for weight in net.parameters():
            weight += rho * weight.grad / length
    net.zero_grad()
    loss().backward()
    with torch.no_grad():
        for weight, old in zip(net.parameters(), before, strict=True):
            weight.copy_(old - rate * weight.grad)
        for buffer, old in zip(net.buffers(), statistics, strict=True):
            buffer.copy_(old)
