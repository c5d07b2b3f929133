"""How near an attack comes: the smallest L2 distance at which a flip was found, which bounds any radius from above."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley.attacks import gradient_walk, pgd
from uncannyvalley.checks import check_count
from uncannyvalley.measures import resolve
from uncannyvalley.measures.zeroth import margin
from uncannyvalley.probe import Prober
from uncannyvalley.splitting import SplitModel, split_for
from uncannyvalley.theory.bound import Bound
from uncannyvalley.types import Attack
from uncannyvalley.walking import Recording, walk

RADII = 12
"""Balls that are attacked, each 1.6 times the one before."""

BISECTIONS = 12
_BATCH = 64


def attacked_radius(
    net: nn.Module | SplitModel,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    *,
    steps: int = 40,
    seed: int = 0,
    batch_size: int = _BATCH,
    progress: Callable[[int], None] | None = None,
) -> Bound:
    """The smallest L2 distance of a misclassified image that PGD found, for each image.

    PGD in L2 walks ``steps`` steps of 2.5/steps of the radius in twelve balls from 0.0009 to 0.16 √pixels, in turn down
    the margin from the clean image and up the loss from a random start; every iterate counts, and the best is drawn back
    towards the clean image by bisection.
    Infinite where nothing flipped, 0 where the clean image is misclassified already.

    Raises InputError for input that cannot be used.
    """
    model, x, y = split_for(net, x, y)
    check_count("steps", steps, 1)
    largest = 0.16 * math.sqrt(x[0].numel())
    radii = [largest / 1.6**place for place in reversed(range(RADII))]
    parts = []
    for first in range(0, len(x), batch_size):
        rows = slice(first, first + batch_size)
        ids = range(first, min(first + batch_size, len(x)))
        parts.append(_nearest_flip(model, x[rows], y[rows], ids, radii, steps, seed, progress))
    assumption = (
        f"a misclassified image at this L2 distance was found by PGD ({steps} steps in {RADII} balls, seed {seed}); a "
        "stronger attack may find a nearer one"
    )
    return Bound(torch.cat(parts), "upper", "certified", (assumption,))


def _nearest_flip(
    model: SplitModel,
    x: Tensor,
    y: Tensor,
    ids: range,
    radii: list[float],
    steps: int,
    seed: int,
    progress: Callable[[int], None] | None,
) -> Float[Tensor, "n"]:
    clean = model.place(x)
    nearest, best = torch.full((len(x),), torch.inf, dtype=torch.float64, device=clean.device), clean.clone()
    for restart, radius in enumerate(radii):
        attack = _attack_in(radius, steps, from_clean=restart % 2 == 1)
        prober = Prober(model, x, y, objective=attack.objective)
        for _, probe in walk(prober, attack, Recording(steps, resolve(["loss"]), seed), ids, restart):
            nearest, best = _nearer(probe.x, clean, probe.predicted != probe.y, nearest, best)
        if progress is not None:
            progress(len(x))
    inside, outside = torch.zeros_like(nearest), torch.ones_like(nearest)
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        scale = middle.to(clean).reshape(-1, *[1] * (clean.dim() - 1))
        between = clean + scale * (best - clean)
        flipped = prober(between).predicted != prober.y
        inside, outside = torch.where(flipped, inside, middle), torch.where(flipped, middle, outside)
        nearest, _ = _nearer(between, clean, flipped, nearest, best)
    return nearest


def _attack_in(radius: float, steps: int, *, from_clean: bool) -> Attack:
    """The loss mixes the directions to all boundaries; the margin's gradient leads straight to the nearest."""
    step_size = 2.5 * radius / steps
    if not from_clean:
        return pgd("l2", eps=radius, step_size=step_size, random_start=True)
    settings = {"norm": "l2", "eps": radius, "step_size": step_size, "random_start": False}
    return gradient_walk("pgd", objective=margin, ascend=False, settings=settings)


def _nearer(
    x: Tensor, clean: Tensor, flipped: Tensor, nearest: Tensor, best: Tensor
) -> tuple[Tensor, Tensor]:
    distance = (x.double() - clean.double()).flatten(1).norm(dim=1)
    is_nearer = flipped & (distance < nearest)
    return torch.where(is_nearer, distance, nearest), torch.where(
        is_nearer.reshape(-1, *[1] * (x.dim() - 1)), x, best
    )
