"""What exact curvature of any layer costs, image by image: beside its floor, and beside other libraries.

    python benchmarks/curvature_cost.py [--shared ../shared] [--batch 256] [--rounds 3] [--threads 1]

On ResNet-20 and CIFAR-10 images, the least certain first, at four layers. The floor: one forward of the plain network
and classes − 1 backwards to the layer's weights. All contenders run in each round, in CPU time; ratios are medians
over rounds of (run / floor or forward of the same round). What works on one image at a time is timed on the first
image, or on some rows of its Hessian, and scaled to the batch ("extrap."). Traces are compared with ours. A second
table: second and third order on a small transformer. Other libraries, never in the project's environment:

    pip install --no-deps --target build/peers-curvature curvlinops-for-pytorch backpack-for-pytorch PyHessian \
        einconv einops linear_operator unfoldNd tqdm
    python benchmarks/curvature_cost.py --peers build/peers-curvature
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from approximations import transformer_costs
from recording_cost import machine
from timing import Compared, Outcome, arguments, cell, console, is_able, print_table, timed
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

import uncannyvalley
from uncannyvalley import SplitModel, curvature, data
from uncannyvalley.derivatives.engine import measure_sites
from uncannyvalley.derivatives.quantities import QUANTITIES
from uncannyvalley.derivatives.results import Effort
from uncannyvalley.derivatives.sites import Site, find_site

LAYERS = {"15": "head", "12.main.3": "last conv.", "8.main.0": "middle", "1": "first conv."}
ALL_ROWS, SOME_ROWS = 640, 16
"""Weights up to which all rows of a Hessian are formed, and rows that are formed for larger layers."""


class Case(NamedTuple):
    """One layer of one network with one batch; only this layer's weights ask for gradients."""

    net: nn.Module
    model: SplitModel
    x: Tensor
    y: Tensor
    site: Site

    @property
    def weight(self) -> nn.Parameter:
        return self.net.get_submodule(self.site.name).weight

    @property
    def rows(self) -> int:
        return self.weight.numel() if self.weight.numel() <= ALL_ROWS else SOME_ROWS


Run = Callable[[Case], Outcome | None]
"""None where the contender cannot do this layer."""
Results = dict[tuple[Run, str], list[Compared]]


@torch.no_grad()
def forward(case: Case) -> Outcome:
    return Outcome(timed(lambda: case.net(case.x)).seconds)


def floor(case: Case) -> Outcome:
    def work() -> None:
        z = case.net(case.x)
        for j in range(z.shape[1] - 1):
            torch.autograd.grad(z[:, j].sum(), case.weight, retain_graph=True)

    return timed(work)


def ours(*names: str) -> Run:
    def run(case: Case) -> Outcome:
        asked = (case.model, [case.site], case.x, case.y, [QUANTITIES[name] for name in names], Effort())
        key = (case.site.name, "trace" if "trace" in names else names[0])
        outcome = timed(lambda: measure_sites(*asked)[key].value)
        return outcome if "trace" in names else Outcome(outcome.seconds)

    return run


def public_call(case: Case) -> Outcome:
    return timed(lambda: [curvature(case.net, case.x, case.y, case.site.name)])


def torch_func(case: Case) -> Outcome:
    """Per-example class gradients by vmap over jacrev, and p-weighted moments of them, in float32."""

    def one(image: Tensor) -> tuple[Tensor, Tensor]:
        def logits(weight: Tensor) -> Tensor:
            return functional_call(case.net, {f"{case.site.name}.weight": weight}, image[None])[0]

        p = logits(case.weight.detach()).softmax(0)
        slopes = jacrev(logits)(case.weight.detach()).reshape(-1, *case.site.shape)
        weighted = p.sqrt()[:, None, None, None] * (slopes - torch.tensordot(p, slopes, 1))
        return weighted.square().sum(), (case.site.root.mT @ weighted).square().sum()

    return timed(lambda: vmap(one, chunk_size=16)(case.x)[0])


def double_backward(case: Case) -> Outcome:
    """The Hessian of one image's loss row by row, as the paper's code forms it."""
    weight, rows, started = case.weight, case.rows, time.process_time()
    loss = F.cross_entropy(case.net(case.x[:1]), case.y[:1])
    slope = torch.autograd.grad(loss, weight, create_graph=True)[0].flatten()
    setup = time.process_time() - started

    def work() -> Tensor:
        hessian = [torch.autograd.grad(slope[i], weight, retain_graph=True)[0].flatten() for i in range(rows)]
        return torch.stack(hessian).trace()[None]

    found = timed(work, weight.numel() / rows)
    return Outcome((setup + found.seconds) * len(case.x), found.trace if rows == weight.numel() else None)


def backpack_head(extension: str) -> Run:
    """Its second-order extensions on the head; the rest of the network is a forward without a graph."""

    def run(case: Case) -> Outcome | None:
        import backpack.extensions

        wanted = getattr(backpack.extensions, extension)()
        if case.site.name != case.model.head_name:
            return None
        head = backpack.extend(copy.deepcopy(case.net[-1]))
        loss = backpack.extend(nn.CrossEntropyLoss(reduction="sum"))

        def work() -> Tensor:
            with torch.no_grad():
                features = case.net[:-1](case.x)
            with backpack.backpack(wanted):
                loss(head(features), case.y).backward()
            found = getattr(head.weight, wanted.savefield)
            if found.dim() == 3:  # the diagonal of each image, else a factor for each class and image
                return found.flatten(1).sum(dim=1)
            _ = (case.site.root[0].mT @ found).square().sum(dim=(0, 2, 3))  # κ
            return found.square().sum(dim=(0, 2, 3))

        return timed(work)

    return run


def curvlinops_trace(estimate: bool) -> Run:
    """Its GGN of one image: by products with all unit vectors, or by its Hutchinson estimator with 100 probes."""

    def run(case: Case) -> Outcome:
        import curvlinops

        size, rows = case.weight.numel(), case.rows

        def work() -> Tensor | None:
            one, loss = [(case.x[:1], case.y[:1])], nn.CrossEntropyLoss()
            ggn = curvlinops.GGNLinearOperator(case.net, loss, [case.weight], one, check_deterministic=False)
            if estimate:
                return curvlinops.hutchinson_trace(ggn, 100)[None]
            columns = ggn @ torch.eye(size, rows)
            return columns.trace()[None] if rows == size else None

        return timed(work, len(case.x) * (1 if estimate else size / rows))

    return run


def pyhessian_trace(case: Case) -> Outcome:
    from pyhessian import hessian

    def work() -> Tensor:
        found = hessian(case.net, nn.CrossEntropyLoss(), (case.x[:1], case.y[:1]), cuda=False).trace()
        return torch.tensor([statistics.fmean(found)])

    outcome = timed(work, len(case.x))
    case.net.zero_grad(set_to_none=True)
    return outcome


OWN = [
    ("floor: forward + 9 backwards", "sum over images", floor),
    ("one forward, no graph", "—", forward),
    ("ours", "trace", ours("trace")),
    ("ours", "κ", ours("relative_sharpness")),
    ("ours", "trace and κ", ours("trace", "relative_sharpness")),
    ("ours", "λ_max", ours("top_eigenvalue")),
    ("ours", "third order τ", ours("third_order")),
    ("ours: curvature(net, …)", "κ", public_call),
    ("torch.func, vmap of jacrev", "trace and κ", torch_func),
    ("double backward, all rows", "Hessian, extrap.", double_backward),
]
PEERS = [
    ("BackPACK BatchDiagGGNExact", "trace", backpack_head("BatchDiagGGNExact")),
    ("BackPACK SqrtGGNExact", "trace and κ", backpack_head("SqrtGGNExact")),
    ("curvlinops GGN, all columns", "trace, extrap.", curvlinops_trace(False)),
    ("curvlinops Hutchinson, 100", "≈ trace, extrap.", curvlinops_trace(True)),
    ("PyHessian, its stopping rule", "≈ trace, extrap.", pyhessian_trace),
]
"""Name, what it gives for each image (≈ for an estimate), and the run."""


def cases(net: nn.Module, x: Tensor, y: Tensor) -> Iterator[Case]:
    model = uncannyvalley.split(net, x, prepare=False)
    for layer in LAYERS:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name == f"{layer}.weight")
        yield Case(net, model, x, y, find_site(model, layer))


def one_round(case: Case, runs: Sequence[Run], results: Results) -> None:
    base, bare, exact = floor(case), forward(case), ours("trace")(case).trace
    for run in runs:
        found = {floor: base, forward: bare}.get(run) or run(case)
        if found is not None:
            off = None if found.trace is None else (found.trace / exact[: len(found.trace)] - 1).abs()
            times = (found.seconds / base.seconds, found.seconds / bare.seconds)
            results.setdefault((run, case.site.name), []).append(Compared(*times, off))


def main() -> None:
    options = arguments(__doc__, batch=256, rounds=3)
    sys.path.append(str(options.shared / "models"))
    from load_reference import load

    images = data.load(f"parquet:{options.shared / 'data/cifar10/test.parquet'}").first(options.batch)
    net = load("cifar10_resnet20")
    with torch.no_grad():
        order = net(images[:]).softmax(1).amax(1).argsort()
    x, y = images[:][order], images.labels[order]
    few, known = next(cases(net, x[:2], y[:2])), OWN + PEERS if options.peers else OWN
    known = [one for one in known if is_able(one[0], one[2], few)]
    results: Results = {}
    for _ in range(options.rounds):
        for case in cases(net, x, y):
            one_round(case, [run for _, _, run in known], results)
    rows = [(name, gives, *(cell(results.get((run, at))) for at in LAYERS)) for name, gives, run in known]
    caption = "CPU time / floor | CPU time / forward (difference of the trace from ours: median, worst)"
    headings = ("contender", "for each image", *(f"{name} {layer}" for layer, name in LAYERS.items()))
    title = f"ResNet-20, {len(x)} images, {options.rounds} rounds"
    print_table(title, headings, rows, text=2, caption=caption)
    transformer_costs(options.rounds, min(options.batch, 64))
    console().print(machine(), highlight=False)


if __name__ == "__main__":
    main()
