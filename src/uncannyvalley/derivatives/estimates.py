"""Estimates that carry their standard error and stop at the tolerance asked for.

Probes are the same for every row of a batch, and a row stops by itself: its value does not depend on its neighbours.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import t as student
from torch import Tensor

from uncannyvalley.derivatives.class_gradients import RankedClasses, SiteGradients
from uncannyvalley.derivatives.curved import LossAt
from uncannyvalley.derivatives.passes import Traced
from uncannyvalley.derivatives.sites import Site
from uncannyvalley.measures.lanczos import largest_by_lanczos

MIN_PROBES = 16
"""Probes before a row may stop: the spread of fewer says too little."""

FEWEST_PROBES = 6
"""Probes where only few backwards are allowed: summing one more class tells more than one more probe."""

SKETCH = 6
"""Directions of the Hessian that are taken exactly before the rest is probed (Hutch++)."""


class Estimated(NamedTuple):
    """A value with its standard error: value ± 1.96 stderr is a 95 % interval."""

    value: Float[Tensor, "n"]
    stderr: Float[Tensor, "n"]


class RunningMean:
    """Mean of samples that come one by one; a row is left out from when it has stopped."""

    def __init__(self, like: Float[Tensor, "n"]) -> None:
        self._count = torch.zeros_like(like)
        self.mean = torch.zeros_like(like)
        self._spread = torch.zeros_like(like)
        self.active = torch.ones_like(like, dtype=torch.bool)

    def add(self, sample: Float[Tensor, "n"]) -> None:
        self._count += self.active
        away = torch.where(self.active, sample - self.mean, 0.0)
        self.mean = self.mean + away / self._count
        self._spread = self._spread + away * torch.where(self.active, sample - self.mean, 0.0)

    @property
    def stderr(self) -> Float[Tensor, "n"]:
        """s/√count, widened so that ± 1.96 of it is Student's 95 % interval.

        With a third of the degrees of freedom: a sample is a quadratic form in signs, and the spread of one of rank r
        is known as well as that of count/(1 + 6/r) normal samples. Rank 3 is taken for the small ones met here.
        """
        free = ((self._count - 1) / 3).clamp(min=1)
        quantile = torch.as_tensor(student.ppf(0.975, free.cpu().numpy())).to(free)
        variance = self._spread / (self._count - 1).clamp(min=1)
        return (variance / self._count.clamp(min=1)).sqrt() * quantile / 1.96

    def stop_where(self, done: Bool[Tensor, "n"]) -> None:
        self.active &= ~done


def probe_until(
    sample: Callable[[], Float[Tensor, "n"]],
    known: Float[Tensor, "n"],
    tolerance: float,
    probes: int | Int[Tensor, "n"],
) -> Estimated:
    """``known`` + mean of samples, until each row's standard error is below ``tolerance`` of its value.

    ``probes`` are the most of each row. Looked at only when the number of probes has grown by half: a look at every probe would stop at lucky ones.
    """
    running = RunningMean(known)
    most = torch.as_tensor(probes, device=known.device).expand(len(known))
    next_look = min(MIN_PROBES, int(most.min()))
    for count in range(1, int(most.max()) + 1):
        running.add(sample())
        running.stop_where(most <= count)
        if count == next_look:
            running.stop_where(running.stderr <= tolerance * (known + running.mean).abs())
            next_look += next_look // 2
        if not bool(running.active.any()):
            break
    return Estimated(known + running.mean, running.stderr)


def signs(shape: tuple[int, ...], draw: torch.Generator, like: Tensor) -> Tensor:
    """Random ±1 of that shape, in the number type of ``like``."""
    return torch.randint(2, shape, generator=draw).to(like) * 2 - 1


def trace_by_classes(
    traced: Traced, site: Site, *, relative: bool, tolerance: float, backwards: int, seed: int
) -> tuple[Estimated, Float[Tensor, "n"], Float[Tensor, "n"], int]:
    """Tr of a piecewise linear network's Hessian over e^m, its log scale m, the dropped share, and the backwards.

    The most probable classes are summed exactly until the others hold less than ``tolerance`` of Σ q. Those others
    enter by their mean, exactly, and by probes Σ √q_s ε_s (G_s − mean) with signs ε, unbiased for their spread.
    """
    classes = RankedClasses.of(traced.logits.detach())
    gradients = SiteGradients(traced, [site], [relative])
    weights, softmax = classes.weights, classes.softmax
    fewest = min(MIN_PROBES, max(FEWEST_PROBES, backwards // 4))
    most = max(1, min(weights.shape[1], backwards - fewest - 2))
    share = weights / weights.sum(1, True)
    behind = 1 - share.cumsum(dim=1)  # what the classes after each rank hold
    kept = (behind > tolerance).sum(dim=1).add(1).clamp(max=most)
    is_kept = torch.arange(weights.shape[1], device=kept.device) < kept[:, None]

    def squared(amounts: Tensor) -> Tensor:
        gradient = gradients(classes.pull(amounts, traced.logits))[site.name, relative]
        return torch.linalg.vector_norm(gradient, dim=1).double().square()

    total = torch.zeros_like(softmax.log_scale)
    for rank in range(int(kept.max())):
        one = torch.zeros_like(weights)
        one[:, rank] = weights[:, rank].sqrt() * is_kept[:, rank]
        total += squared(one)
    total -= softmax.scale * squared(weights)
    rest = weights * ~is_kept
    mass = rest.sum(dim=1)
    if not bool(mass.any()):
        return Estimated(total, torch.zeros_like(total)), softmax.log_scale, mass, gradients.backwards
    mean = rest / torch.where(mass > 0, mass, 1.0)[:, None]
    total += mass * squared(mean)
    draw = torch.Generator().manual_seed(seed)

    def sample() -> Tensor:
        amounts = rest.sqrt() * signs((weights.shape[1],), draw, rest)
        return squared(amounts - amounts.sum(1, True) * mean)

    found = probe_until(sample, total, tolerance, backwards - 2 - kept)
    return found, softmax.log_scale, (rest / weights.sum(1, True)).sum(dim=1), gradients.backwards


def trace_by_products(loss: LossAt, tolerance: float, backwards: int, seed: int) -> Estimated:
    """Tr H by Hutch++ (Meyer et al. 2021): exact on a sketched range, probed on what is orthogonal to it."""
    draw = torch.Generator().manual_seed(seed)
    rows = len(loss.log_scale)

    def everywhere(vector: Float[Tensor, "p"]) -> Float[Tensor, "n p"]:
        return vector.expand(rows, -1)

    sketch = min(SKETCH, loss.size, (backwards - 1 - FEWEST_PROBES) // 2)
    images = [
        loss.product(everywhere(signs((loss.size,), draw, loss.gradient))).detach() for _ in range(sketch)
    ]
    basis = torch.linalg.qr(torch.stack(images, dim=2)).Q
    known = torch.zeros_like(loss.log_scale)
    for direction in basis.unbind(dim=2):
        known += (direction * loss.product(direction).detach()).double().sum(dim=1)

    def sample() -> Tensor:
        probe = everywhere(signs((loss.size,), draw, loss.gradient))
        probe = probe - (basis @ (basis.mT @ probe[:, :, None])).squeeze(2)
        return (probe * loss.product(probe).detach()).double().sum(dim=1)

    return probe_until(sample, known, tolerance, backwards - 1 - 2 * sketch)


def top_eigenvalue_by_products(loss: LossAt, tolerance: float, backwards: int) -> Estimated:
    """λ_max by Lanczos steps; the error is the residual, within which an eigenvalue lies."""
    found = largest_by_lanczos(
        lambda vectors: loss.product(vectors).detach(),
        loss.gradient.detach(),
        tolerance=tolerance,
        max_steps=backwards - 1,
    )
    return Estimated(found.value.double(), found.residual.double())


def third_norm_by_probes(loss: LossAt, tolerance: float, backwards: int, seed: int) -> Estimated:
    """|D³ℓ|_F from |D³ℓ[u, v, ·]|², unbiased for its square with independent random signs u and v."""
    draw = torch.Generator().manual_seed(seed)
    rows = len(loss.log_scale)

    def sample() -> Tensor:
        u, v = (signs((loss.size,), draw, loss.gradient).expand(rows, -1) for _ in range(2))
        return loss.third_product(u, v).detach().double().square().sum(dim=1)

    square = probe_until(sample, torch.zeros_like(loss.log_scale), 2 * tolerance, (backwards - 1) // 2)
    norm = square.value.sqrt()
    return Estimated(norm, square.stderr / (2 * norm))
