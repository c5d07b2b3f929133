"""Worlds in which the example behind every queried row is known: what a watcher of queries has to find again."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uncannyvalley import measures as registry
from uncannyvalley.matching import BALL_FLOOR, BALL_SLACK, CLEARLY, Fate, Matcher
from uncannyvalley.observing import Observation
from uncannyvalley.probe import Prober
from uncannyvalley.splitting import split
from uncannyvalley.trajectory import Trajectory

Scene = tuple[nn.Module, Tensor, Tensor]
"""A network, images and labels."""

Ask = Callable[[Tensor, Tensor], object]
"""Rows and their true examples, −1 for none, as an adversary queries them."""


@dataclass
class Noted:
    """Passes rows on to ``model`` and notes whose each of them was."""

    model: Callable[[Tensor], object]
    rows: list[Tensor] = field(default_factory=list)
    owners: list[Tensor] = field(default_factory=list)

    def __call__(self, rows: Tensor, owners: Tensor) -> object:
        self.rows.append(rows.detach().clone())
        self.owners.append(owners)
        return self.model(rows)

    def walks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every row that belongs to an example: the image, its example and its query number, by example and number."""
        rows, owners = torch.cat(self.rows), torch.cat(self.owners)
        order = owners.argsort(stable=True)
        order = order[owners[order] >= 0]
        examples, counts = owners[order].unique_consecutive(return_counts=True)
        assert len(examples) == len(counts)
        return rows[order], owners[order], torch.cat([torch.arange(int(count)) for count in counts])


# --- images at known distances, and walks from them --------------------------------------------------


def at_distances(gap: float, count: int, shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Images around grey, every two of them ``gap`` apart in L2."""
    size = math.prod(shape)
    axes = torch.linalg.qr(torch.randn(size, count, generator=draw, dtype=torch.float64)).Q.T
    return (0.5 + gap / math.sqrt(2) * axes).float().view(count, *shape)


def directions(like: Tensor, norm: str, draw: torch.Generator) -> Tensor:
    """Random directions of length 1: signs for linf."""
    random = torch.randn(like.shape, generator=draw)
    if norm == "linf":
        return random.sign()
    return random / random.flatten(1).norm(dim=1).view(-1, *(1,) * (like.dim() - 1))


def into_ball(x: Tensor, clean: Tensor, eps: float | None, norm: str) -> Tensor:
    """x moved to the nearest point of the balls around ``clean``."""
    if eps is None:
        return x
    if norm == "linf":
        return clean + (x - clean).clamp(-eps, eps)
    moved = (x - clean).flatten(1)
    shrunk = moved * (eps / moved.norm(dim=1, keepdim=True).clamp(min=eps))
    return clean + shrunk.view_as(x)


def wander(
    ask: Ask,
    x: Tensor,
    seed: int,
    *,
    step: float,
    eps: float | None,
    norm: str,
    rounds: int = 12,
    restarts: bool = True,
) -> None:
    """An attack that learns nothing and does everything a library may do to the rows of its calls.

    It starts anew now and then, at the image or (with a ball) anywhere in it, drops examples, asks for some of them
    twice, in any order and in calls of any size. ``step`` is a length in ``norm``.
    """
    draw, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    last = x.clone()
    for _ in range(rounds):
        if restarts and rng.random() < 0.2:
            whole_ball = 0.0 if eps is None else 2 * eps * rng.random()
            last = into_ball(x + whole_ball * directions(x, norm, draw), x, eps, norm)
        asked = torch.from_numpy(rng.permutation(len(x))[: rng.integers(1, len(x) + 1)])
        asked = torch.cat([asked, asked[: rng.integers(0, len(asked) + 1)]])  # some twice
        for part in asked[torch.from_numpy(rng.permutation(len(asked)))].split(
            int(rng.integers(1, len(x) + 1))
        ):
            rows = into_ball(last[part] + step * directions(x[part], norm, draw), x[part], eps, norm)
            ask(rows, part)
            last[part] = rows


def pgd(
    model: Callable, x: Tensor, y: Tensor, *, eps: float = 0.1, steps: int = 5, start: Tensor | None = None
) -> Tensor:
    """PGD as one writes it by hand; ``model`` may return what has logits."""
    at = x.clone() if start is None else start.clone()
    for _ in range(steps):
        at = at.detach().requires_grad_()
        out = model(at)
        loss = F.cross_entropy(getattr(out, "logits", out), y)
        (slope,) = torch.autograd.grad(loss, at)
        at = torch.clamp(at.detach() + 0.3 * eps * slope.sign(), x - eps, x + eps).clamp(0, 1)
    return at


# --- what is right -----------------------------------------------------------------------------------


class SlowMatcher:
    """The rule of ``Matcher`` row by row in float64, from its definition."""

    def __init__(self, originals: Tensor, eps: float | None, norm: str, far: float) -> None:
        self.originals = originals.flatten(1).double()
        self.last = self.originals.clone()
        self.eps, self.far = eps, far
        self.order = math.inf if norm == "linf" else 2

    def match(self, rows: Tensor) -> tuple[list[int], list[Fate]]:
        """Owner and fate of each row, all judged by what was known before the call."""
        found = [self._judge(row) for row in rows.flatten(1).double()]
        for row, (owner, fate) in zip(rows.flatten(1).double(), found, strict=True):
            if fate == Fate.MATCHED:
                self.last[owner] = row
        return [owner for owner, _ in found], [fate for _, fate in found]

    def _judge(self, row: Tensor) -> tuple[int, Fate]:
        if not torch.isfinite(row).all():
            return -1, Fate.NOT_FINITE
        apart = torch.minimum((row - self.originals).norm(dim=1), (row - self.last).norm(dim=1))
        if self.eps is not None:
            radius = self.eps * (1 + BALL_SLACK) + BALL_FLOOR
            apart[torch.linalg.vector_norm(row - self.originals, self.order, dim=1) > radius] = math.inf
        nearest = int(apart.argmin())
        others = torch.cat([apart[:nearest], apart[nearest + 1 :], torch.tensor([math.inf]).double()])
        if apart[nearest].isinf() or (self.eps is None and apart[nearest] > self.far):
            return -1, Fate.UNMATCHED
        if apart[nearest] * CLEARLY < others.min():
            return nearest, Fate.MATCHED
        return -1, Fate.AMBIGUOUS


@dataclass
class Verdict:
    """Rows whose example was found, was not found, and was taken for another one."""

    right: int = 0
    apart: int = 0
    wrong: int = 0

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(self.right + other.right, self.apart + other.apart, self.wrong + other.wrong)


def judged(matcher: Matcher, calls: Iterator[tuple[Tensor, Tensor]] | list[tuple[Tensor, Tensor]]) -> Verdict:
    """What ``matcher`` makes of calls whose true examples are known."""
    verdict = Verdict()
    for rows, owners in calls:
        found = matcher.match(rows).owner
        verdict.right += int((found == owners)[owners >= 0].sum())
        verdict.apart += int((found < 0)[owners >= 0].sum())
        verdict.wrong += int((found[found >= 0] != owners[found >= 0]).sum())
    return verdict


def measured_afresh(
    net: nn.Module, rows: Tensor, clean: Tensor, y: Tensor, names: list[str]
) -> dict[str, np.ndarray]:
    """Measures at ``rows`` by a forward of their own."""
    model = split(net, clean, prepare=False)
    chosen = registry.resolve(names)
    needs = frozenset().union(*(one.needs for one in chosen))
    return registry.read(Prober(model, clean, y)(rows, needs), chosen)


def assert_holds_exactly(
    found: Trajectory,
    noted: Noted,
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    names: list[str],
    ids: list[int] | None = None,
) -> None:
    """The trajectory has the noted rows, all of them and no other, in their places and with their measures."""
    rows, examples, steps = noted.walks()
    listed = np.arange(len(x)) if ids is None else np.asarray(ids)
    order = np.lexsort((steps.numpy(), listed[examples.numpy()]))
    rows, examples, steps = rows[order], examples[order], steps[order]
    np.testing.assert_array_equal(found.table["example"].to_numpy(), listed[examples.numpy()])
    np.testing.assert_array_equal(found.table["step"].to_numpy(), steps.numpy())
    np.testing.assert_array_equal(found.table["label"].to_numpy(), y[examples].numpy())
    for name, expected in measured_afresh(net, rows, x[examples], y[examples], names).items():
        close(found.table[name].to_numpy(), expected, name)


def close(found: np.ndarray, expected: np.ndarray, name: str, within: float = 1e-5) -> None:
    """Equal to ``within`` · max(1, |expected|), and infinite or missing at the same places."""
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite], err_msg=name)
    off = np.abs(found - expected)[finite] / np.maximum(1, np.abs(expected[finite]))
    assert off.max(initial=0) <= within, f"{name} is off by {off.max():.1e}"


def counted(walk: Observation, **fates: int) -> bool:
    """Whether so many rows had these fates, and none another."""
    return walk.fates == {"matched": 0, "ambiguous": 0, "unmatched": 0, "not_finite": 0} | fates
