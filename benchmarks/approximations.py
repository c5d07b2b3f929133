"""Cheap approximations for models too large to be measured exactly: their error, what they say of it, their cost.

    python benchmarks/approximations.py [--shared ../shared] [--rounds 3] [--threads 1]

Each is compared with the exact value on a case small enough to have one. Errors are relative ones of κ, or those of
log κ in nats, over all rows (images and seeds, tokens, or draws). "stated" is the median standard error, "inside" the
share of rows within 1.96 of it. Cost is CPU time over the exact way's, medians over rounds. Takes no other libraries.

    a  class probes     all classes but the most probable are probed, not summed (piecewise linear, 1000 classes)
    b  some tokens      mean log κ at a vocabulary head from a random subset of 512 tokens (error in nats)
    c  low-rank head    W replaced by its truncated singular value decomposition
    d  Hutch++          Hessian products at a layer in front of a GELU
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from head_cost import leaning_features, random_head
from recording_cost import machine
from safetensors.torch import load_file
from timing import arguments, print_table, ratio_medians
from torch import Tensor, nn
from torch.nn import functional as F

import uncannyvalley
from uncannyvalley import Probe, curvature, data, directional_derivative
from uncannyvalley.head import Head
from uncannyvalley.measures.second import log_class_variance, log_relative_sharpness

SEEDS = 10
"""Probes are the same for all images, so that errors of one seed go together."""


class Compared(NamedTuple):
    """One approximation: absolute error and, where it states one, standard error; rows of the same unit."""

    name: str
    size: str
    error: Tensor
    stderr: Tensor | None
    cost: float
    in_nats: bool = False

    def row(self) -> list[str]:
        show = (lambda t: f"{t:.3f} nats") if self.in_nats else (lambda t: f"{t:.2%}")
        stated = inside = "—"
        if self.stderr is not None:
            stated = show(self.stderr.median())
            inside = f"{(self.error <= 1.96 * self.stderr).double().mean():.0%}"
        return [
            self.name, self.size, show(self.error.median()), show(self.error.quantile(0.9)),
            show(self.error.max()), stated, inside, f"{self.cost:#.2g}",
        ]  # fmt: skip


def estimates(
    name: str, net: nn.Module, x: Tensor, layer: str, budgets: tuple[int, ...], tolerance: float, rounds: int
) -> Iterator[Compared]:
    """Exact κ against ``method="estimate"`` with fewer and more backwards."""
    model = uncannyvalley.split(net, x, prepare=False)
    y = model(x).argmax(dim=1)

    def ask(**options: object) -> uncannyvalley.Estimate:
        return curvature(model, x, y, layer, "relative_sharpness", **options)

    def probed(backwards: int, seed: int = 0) -> uncannyvalley.Estimate:
        return ask(method="estimate", backwards=backwards, tolerance=tolerance, seed=seed)

    exact = ask()
    runs: dict[str, Callable[[], object]] = {"exact": ask}
    runs |= {str(budget): lambda budget=budget: probed(budget) for budget in budgets}
    cost = ratio_medians(runs, "exact", rounds)
    for budget in budgets:
        found = [probed(budget, seed) for seed in range(SEEDS)]
        error = torch.cat([(one.value / exact.value - 1).abs() for one in found])
        stderr = torch.cat([one.stderr / exact.value.abs() for one in found])
        size = f"at most {budget}: {found[0].backwards} of {exact.backwards} backwards"
        yield Compared(name, size, error, stderr, cost[str(budget)])


def conv_net(classes: int, x: Tensor) -> nn.Module:
    """A random ReLU network whose head is scaled to a median confidence of 0.7."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(512, classes),
    ).eval()  # fmt: skip
    with torch.no_grad():
        net[-1].bias -= net(x).mean(dim=0)
        scale = confident_scale(net(x), 0.7)
        net[-1].weight *= scale
        net[-1].bias *= scale
    return net


def confident_scale(logits: Tensor, confidence: float) -> float:
    """The factor that gives these logits this median confidence."""
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        is_sure = (middle * logits).softmax(1).amax(1).median() > confidence
        low, high = (low, middle) if is_sure else (middle, high)
    return high


def probe_of(head: Head, features: Tensor) -> Probe:
    rows = torch.arange(len(features))
    return Probe(features, features, rows * 0, None, rows, features, head.logits(features), head)


def encoder_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(64, 4, 256, 0.0, "gelu", batch_first=True)


def token_subsets(rounds: int, words: int = 32_000, tokens: int = 512) -> Iterator[Compared]:
    torch.manual_seed(0)
    net = nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False).eval()
    embedded = torch.randn(words, 64)[torch.randint(words, (tokens,))]
    with torch.no_grad():
        features = net(embedded[None], nn.Transformer.generate_square_subsequent_mask(tokens))[0]
    weight = torch.randn(words, 64)
    head = Head(weight * confident_scale(features @ weight.T, 0.5), None)
    _ = head.squared_norms
    every = log_relative_sharpness(probe_of(head, features))
    sizes = (16, 64, 256)
    runs: dict[str, Callable[[], object]] = {
        str(size): lambda size=size: log_relative_sharpness(probe_of(head, features[:size]))
        for size in (*sizes, tokens)
    }
    cost = ratio_medians(runs, str(tokens), rounds)
    for size in sizes:
        chosen = torch.stack([every[torch.randperm(tokens)[:size]] for _ in range(200)])
        stderr = chosen.std(dim=1) * ((1 - size / tokens) / size) ** 0.5  # without replacement
        error = (chosen.mean(dim=1) - every.mean()).abs()
        size_of = f"{size} of {tokens}"
        yield Compared("b  some tokens, mean log κ", size_of, error, stderr, cost[str(size)], True)


def low_rank(
    name: str, head: Head, features: Tensor, ranks: Sequence[int], rounds: int
) -> Iterator[Compared]:
    """The truncated head acts on r coordinates of φ, made by one product; its rows keep their distances."""
    _, values, basis = torch.linalg.svd(head.weight, full_matrices=False)
    norms = 2 * features.double().norm(dim=1).log()
    exact = norms + log_class_variance(probe_of(head, features))
    heads = {rank: Head(head.weight @ basis[:rank].T, None) for rank in ranks}
    for one in (head, *heads.values()):
        _ = one.squared_distances if one.is_pairwise else one.squared_norms

    def truncated(rank: int, logits: Tensor | None = None) -> Tensor:
        probe = probe_of(heads[rank], features @ basis[:rank].T)
        return norms + log_class_variance(probe if logits is None else replace(probe, logits=logits))

    ways: dict[str, Callable[[int], Tensor]] = {
        "": truncated,
        ", softmax of W": lambda rank: truncated(rank, head.logits(features)),
    }
    runs: dict[str, Callable[[], object]] = {"exact": lambda: log_class_variance(probe_of(head, features))}
    runs |= {f"{rank}{way}": lambda rank=rank, do=do: do(rank) for way, do in ways.items() for rank in ranks}
    cost = ratio_medians(runs, "exact", rounds)
    for way, do in ways.items():
        for rank in ranks:
            kept = values[:rank].square().sum() / values.square().sum()
            size, error = f"rank {rank} ({kept:.0%} of |W|²){way}", (do(rank) - exact).abs()
            yield Compared(f"c  {name}, log κ", size, error, None, cost[f"{rank}{way}"], True)


def low_rank_heads(shared: Path, rounds: int) -> Iterator[Compared]:
    rows = load_file(shared / "models/stories260k/model.safetensors")["model.embed_tokens.weight"]
    trained = Head(rows, None)
    yield from low_rank("stories260k head", trained, leaning_features(trained, 64), (16, 32, 48), rounds)
    random = random_head(8000, 512)
    decaying = Head(random.weight * torch.arange(1, 513) ** -0.5, None)
    yield from low_rank("decaying head", decaying, leaning_features(decaying, 64), (16, 64, 256), rounds)


class SmallTransformer(nn.Module):
    """Two layers of width 64 over the 16 patches of an 8 x 8 image; random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 64)
        self.place = nn.Parameter(torch.randn(16, 64) / 8)
        self.blocks = nn.Sequential(encoder_layer(), encoder_layer())
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(F.unfold(x, 2, stride=2).mT) + self.place
        return self.head(self.blocks(tokens).mean(dim=1))


def transformer_costs(rounds: int, batch: int) -> None:
    """Second and third order on a network that curves, in units of one forward + backward to all its weights."""
    torch.manual_seed(0)
    net, layer, sixty = SmallTransformer().eval(), "blocks.1.linear1", {"method": "estimate", "backwards": 60}
    images = data.load("digits").first(batch)
    x, y = images[:], images.labels
    model = uncannyvalley.split(net, x, prepare=False)
    v = torch.randn(net.get_submodule(layer).weight.shape)
    asked = {
        "head: trace": ("head", "trace", {}),
        "head: third order τ": ("head", "third_order", {}),
        "MLP: trace, at most 60": (layer, "trace", sixty),
        "MLP: κ, at most 60": (layer, "relative_sharpness", sixty),
        "MLP: third order τ, at most 60": (layer, "third_order", sixty),
    }
    weights = list(net.parameters())
    runs: dict[str, Callable[[], object]] = {
        "forward + backward": lambda: torch.autograd.grad(F.cross_entropy(net(x), y), weights)
    }
    for name, (at, quantity, options) in asked.items():
        runs[name] = partial(curvature, model, x, y, at, quantity, **options)
    for order in (2, 3):
        name = f"MLP: directional derivative, order {order}"
        runs[name] = partial(directional_derivative, model, x, y, layer, v, order)
    medians = ratio_medians(runs, "forward + backward", rounds)
    rows = []
    for name, ratio in medians.items():
        cells = ["", "", ""]
        if name in asked:
            found = runs[name]()
            spread = "exact" if found.stderr is None else f"{(found.stderr / found.value).median():.1%}"
            cells = [found.how, str(found.backwards), spread]
        rows.append([name, f"{ratio:#.3g}", *cells])
    title = f"a transformer of 2 layers, {len(x)} images; MLP = {layer}, {v.numel()} weights"
    print_table(title, ("run", "CPU / (forward + backward)", "way", "backwards", "stderr / value"), rows)


def main() -> None:
    options = arguments(__doc__, batch=32, rounds=3)
    images, digits = torch.rand(options.batch, 3, 16, 16), data.load("digits").first(options.batch)[:]
    net = conv_net(1000, images)
    gelu = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10)).eval()
    rows = [
        *estimates("a  class probes", net, images, "2", (10, 20, 50, 150), 0.01, options.rounds),
        *token_subsets(options.rounds),
        *low_rank_heads(options.shared, options.rounds),
        *estimates("d  GELU layer", gelu, digits, "1", (30, 60, 120, 240), 1e-3, options.rounds),
    ]
    headings = ("approximation", "size", "median error", "90 %", "worst", "stated", "inside", "cost / exact")
    print_table("approximations against exact", headings, [one.row() for one in rows], text=2)
    print(machine())


if __name__ == "__main__":
    main()
