"""Estimates that carry their standard error and stop at the tolerance asked for.

Probes are the same for every row of a batch, and a row stops by itself: its value does not depend on its neighbours.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from scipy.stats import t as student
from torch import Tensor

from uncannyvalley.derivatives.class_gradients import RankedClasses, SiteGradients
from uncannyvalley.derivatives.curved import LossAt
from uncannyvalley.derivatives.passes import Traced
from uncannyvalley.derivatives.sites import Site
from uncannyvalley.measures.lanczos import largest_by_lanczos

MIN_PROBES = 16
"""Probes before a row may stop: the spread of fewer says too little."""

QUADRATIC = 3.0
"""A quadratic form in signs of rank r has a spread known as well as that of count/(1 + 6/r) normal samples; rank 3 is
taken for the small ones met here."""

CUBIC = 10.0
"""|D³ℓ[u, v, ·]|² is of fourth order in signs: its spread is known worse (measured by coverage)."""

FEWEST_PROBES = 6
"""Probes where only few backwards are allowed: summing one more class tells more than one more probe."""

SKETCH = 6
"""Directions of the Hessian that are taken exactly before the rest is probed (Hutch++)."""


class Estimated(NamedTuple):
    """A value with its standard error: value ± 1.96 stderr is a 95 % interval."""

    value: Float[Tensor, "n"]
    stderr: Float[Tensor, "n"]


class RunningMean:
    """Mean of samples that come one by one; a row is left out from when it has stopped.

    ``wildness`` says how badly the spread of the samples is known: by count/wildness degrees of freedom.
    """

    def __init__(self, like: Float[Tensor, "n"], wildness: float) -> None:
        self._wildness = wildness
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
        """s/√count, widened so that ± 1.96 of it is Student's 95 % interval."""
        free = ((self._count - 1) / self._wildness).clamp(min=1)
        quantile = torch.as_tensor(student.ppf(0.975, free.cpu().numpy())).to(free)
        variance = self._spread / (self._count - 1).clamp(min=1)
        return (variance / self._count.clamp(min=1)).sqrt() * quantile / 1.96

    def stop_where(self, done: Bool[Tensor, "n"]) -> None:
        self.active &= ~done


def probe_until(
    sample: Callable[[], Float[Tensor, "n"]],
    known: Float[Tensor, "n"],
    tolerance: float,
    probes: int,
    wildness: float = QUADRATIC,
) -> Estimated:
    """``known`` + mean of samples, until each row's standard error is below ``tolerance`` of its value.

    Looked at only when the number of probes has grown by half: a look at every probe would stop at lucky ones.
    """
    running = RunningMean(known, wildness)
    next_look = MIN_PROBES
    for count in range(1, probes + 1):
        running.add(sample())
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
    probes = max(FEWEST_PROBES, backwards // 3)  # of the budget alone: no row's share may depend on another's
    most = min(weights.shape[1], backwards - 2 - probes)
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
        by_class = signs((traced.logits.shape[1],), draw, rest)  # not by rank: near ties may swap theirs
        amounts = rest.sqrt() * by_class[classes.order]
        return squared(amounts - amounts.sum(1, True) * mean)

    found = probe_until(sample, total, tolerance, probes)
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

    square = probe_until(sample, torch.zeros_like(loss.log_scale), 2 * tolerance, (backwards - 1) // 2, CUBIC)
    norm = square.value.sqrt()
    return Estimated(norm, square.stderr / (2 * norm))
