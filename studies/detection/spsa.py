"""SPSA: an attack that sees logits alone and climbs a gradient that random signs estimate (Uesato et al. 2018, arXiv 1802.05666).

    ĝ(x) = mean_i v_i (m(x + δ v_i) − m(x − δ v_i)) / 2δ,  v_i ∈ {−1, +1}^d,  m = max_{s≠y} z_s − z_y

Adam climbs m along ĝ; after every step the image is put back into the Linf ball and into [0, 1]. It never stops early.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley.adversaries import Adversary, Outcome
from uncannyvalley.adversaries.containment import contained

BETAS = (0.9, 0.999)
"""Of Adam, with its usual 1e-8 below the root."""


def spsa(
    *, eps: float, steps: int = 20, pairs: int = 25, delta: float = 0.01, rate: float = 0.01
) -> Adversary:
    """SPSA with δ and Adam's rate as published (there: 4096 pairs and 100 steps, 819 200 queries an image).

    Queries an image: 2 · pairs · steps = 1000. All images of a run share their directions, drawn from the seed, so that an
    image's path depends on that image alone. Queries are images, too: they are clipped to [0, 1].
    """

    def attack(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Outcome:
        draw = torch.Generator().manual_seed(seed)
        pushed = x.clone()
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        with torch.no_grad():
            for step in range(1, steps + 1):
                slope = _estimate(model, pushed, y, pairs, delta, draw)
                first = BETAS[0] * first + (1 - BETAS[0]) * slope
                second = BETAS[1] * second + (1 - BETAS[1]) * slope.square()
                mean, square = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
                pushed = pushed + rate * mean / (square.sqrt() + 1e-8)
                pushed = torch.minimum(torch.maximum(pushed, x - eps), x + eps).clamp(0, 1)
            fooled = model(pushed).argmax(dim=1) != y
        return Outcome(pushed, fooled)

    settings = {
        "norm": "linf", "eps": eps, "steps": steps, "pairs": pairs, "delta": delta, "rate": rate, "betas": list(BETAS),
    }  # fmt: skip
    return Adversary("spsa", "this study", "score", settings, contained("spsa", attack))


def _estimate(
    model: nn.Module,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    pairs: int,
    delta: float,
    draw: torch.Generator,
) -> Float[Tensor, "n ..."]:
    """ĝ at each image."""
    total = torch.zeros_like(x)
    for _ in range(pairs):
        signs = (2 * torch.randint(2, x.shape[1:], generator=draw) - 1).to(x)
        ends = torch.cat([x + delta * signs, x - delta * signs]).clamp(0, 1)
        above, below = _margin(model(ends), y.repeat(2)).chunk(2)
        total += (above - below).view(-1, *[1] * (x.dim() - 1)) * signs
    return total / (2 * delta * pairs)


def _margin(logits: Float[Tensor, "n c"], y: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """max_{s≠y} z_s − z_y, nats: above 0 where the image is misclassified."""
    own = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).amax(dim=1) - own
