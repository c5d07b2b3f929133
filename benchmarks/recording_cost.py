"""What recording costs: PGD with every measure of every step, beside a hand-written loop that records nothing.

    python benchmarks/recording_cost.py [--rounds 5] [--batch 64] [--threads 1] [--compile] [--json]

All runs take 20 PGD steps (Linf, eps 8/255, step 2/255, no random start) from the same CIFAR-10 images, one
after the other in each round, so that a busy machine slows all of them alike. Ratios are medians over rounds
of (run / reference run of the same round). Forwards and backwards are counted in the warm-up round. Where other
processes come and go, whole walks are too long to compare by percents: the lines below the table repeat d and e
with an evaluation of a and of b or c after each of their own.

    a  bare loop, your network    the loop one writes by hand, on the network as it was loaded
    b  bare loop, prepared copy   the same loop on the copy that uncannyvalley.split makes
    c  the same, 21 evaluations   what knowing the last point costs, whoever records it
    d  record                     uncannyvalley.record with all closed-form measures
    e  record, compiled           the same after split(compile=True); needs a C++ compiler

Other libraries, which record nothing, join in where ``--peers`` names a folder that holds them. They are
never installed in the project's environment, and their own dependencies stay out:

    pip install --no-deps --target build/peers torchattacks foolbox adversarial-robustness-toolbox \
        eagerpy requests urllib3 charset_normalizer idna certifi gitpython gitdb smmap six tqdm
    python benchmarks/recording_cost.py --peers build/peers

The network and the images are found in the folder named by UNCANNY_SHARED, else in ../shared.
"""

import argparse
import copy
import importlib
import io
import json
import os
import platform
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import uncannyvalley
from uncannyvalley import SplitModel

EPS, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 20
REFERENCES = ("a", "b", "c")
RECORDED = {"d": "record, all measures", "e": "record, compiled"}

Network = Callable[[Tensor], Tensor]
Walk = Callable[[], object]


def shared_folder() -> Path:
    """Where the shared networks and images lie."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    return Path(os.environ.get("UNCANNY_SHARED", beside))


def load_network(name: str = "cifar10_resnet20") -> nn.Module:
    """A shared network in evaluation mode, as its own loader gives it."""
    folder = str(shared_folder() / "models")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("load_reference").load(name)


def load_images(count: int) -> tuple[Tensor, Tensor]:
    """The first CIFAR-10 test images in [0, 1] and their classes."""
    path = shared_folder() / "data" / "cifar10" / "test.parquet"
    rows = next(pq.ParquetFile(path).iter_batches(count)).to_pydict()
    pixels = [np.asarray(Image.open(io.BytesIO(one["bytes"])).convert("RGB")) for one in rows["img"]]
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous().float() / 255
    return x, torch.tensor(rows["label"])


def machine() -> str:
    """One line: torch, threads, device."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = named[0] if named else platform.processor() or platform.machine()
    return f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), CPU: {processor}"


def bare_pgd(net: Network, clean: Tensor, y: Tensor, evaluations: int) -> Iterator[Tensor]:
    """PGD as one writes it by hand, x by x; an evaluation more than steps only looks at the last point."""
    x = clean
    for evaluation in range(evaluations):
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(net(x), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        if evaluation < STEPS:
            x = x.detach() + STEP_SIZE * gradient.sign()
            x = torch.clamp(x, clean - EPS, clean + EPS).clamp(0, 1)
        yield x


class Counter(nn.Module):
    """Calls ``inner`` and counts how often, and how often a backward came back through it."""

    def __init__(self, inner: Network) -> None:
        super().__init__()
        self.inner = inner
        self.forwards = self.backwards = 0
        self.train(False)

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        output = self.inner(x)
        if output.requires_grad:
            output.register_hook(self._count_backward)
        return output

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += 1


@dataclass
class Contestant:
    """``prepare(wrap)`` makes the walk that is timed; ``wrap`` may put a counter around its network."""

    key: str
    name: str
    prepare: Callable[[Callable], Walk]
    counts: tuple[int, int] = (0, 0)
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def warm_up(self) -> None:
        """One walk with a counter, then a timed walk that is not kept."""
        counters: list[Counter] = []

        def counted(inner: Network) -> Counter:
            counters.append(Counter(inner))
            return counters[-1]

        self.prepare(counted)()
        self.counts = (sum(c.forwards for c in counters), sum(c.backwards for c in counters))
        self.walk = self.prepare(lambda inner: inner)
        self.walk()

    def run(self) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        self.walk()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)


def record_pgd(
    model: SplitModel, x: Tensor, y: Tensor, progress: Callable[[int], None] | None = None
) -> None:
    attack = uncannyvalley.attacks.pgd(eps=EPS, step_size=STEP_SIZE)
    uncannyvalley.record(model, x, y, attack, steps=STEPS, batch_size=len(x), progress=progress)


def bare(key: str, name: str, net: Network, x: Tensor, y: Tensor, evaluations: int = STEPS) -> Contestant:
    def prepare(wrap: Callable) -> Walk:
        network = wrap(net)
        return lambda: deque(bare_pgd(network, x, y, evaluations), maxlen=0)

    return Contestant(key, name, prepare)


def recorded(key: str, name: str, model: SplitModel, x: Tensor, y: Tensor) -> Contestant:
    def prepare(wrap: Callable) -> Walk:
        wrapped = replace(model, body=wrap(model.body))
        return lambda: record_pgd(wrapped, x, y)

    return Contestant(key, name, prepare)


def own_contestants(net: nn.Module, models: dict[str, SplitModel], x: Tensor, y: Tensor) -> list[Contestant]:
    """The bare loops and our recorder."""
    model = models["d"]
    placed = model.place(x)
    return [
        bare("a", "bare loop, your network", net, x, y),
        bare("b", "bare loop, prepared copy", model, placed, y),
        bare("c", "the same, 21 evaluations", model, placed, y, STEPS + 1),
        *(recorded(key, RECORDED[key], one, x, y) for key, one in models.items()),
    ]


def lockstep(net: nn.Module, plain: SplitModel, model: SplitModel, x: Tensor, y: Tensor) -> dict[str, float]:
    """CPU time of one recorded walk over that of a, b and c, which go an evaluation after each of its own."""
    clock = time.process_time
    spent: dict[str, list[float]] = {"a": [], "c": [], "record": []}
    others = {"a": bare_pgd(net, x, y, STEPS + 1), "c": bare_pgd(plain, plain.place(x), y, STEPS + 1)}
    since = clock()

    def others_turn(_: int) -> None:
        nonlocal since
        spent["record"].append(clock() - since)
        for key, walk in others.items():
            since = clock()
            next(walk)
            spent[key].append(clock() - since)
        since = clock()

    record_pgd(model, x, y, others_turn)
    spent["record"].append(clock() - since)
    own = sum(spent["record"])
    references = {"a": spent["a"][:STEPS], "b": spent["c"][:STEPS], "c": spent["c"]}
    return {key: own / sum(times) for key, times in references.items()}


def lockstep_medians(
    net: nn.Module, models: dict[str, SplitModel], x: Tensor, y: Tensor, rounds: int
) -> dict[str, dict[str, float]]:
    """Medians over rounds, for each recorder."""
    medians = {}
    for recorder, model in models.items():
        walks = [lockstep(net, models["d"], model, x, y) for _ in range(rounds)]
        medians[recorder] = {key: statistics.median(one[key] for one in walks) for key in REFERENCES}
    return medians


def torchattacks_pgd(net: nn.Module, x: Tensor, y: Tensor) -> Walk:
    peer = importlib.import_module("torchattacks")
    attack = peer.PGD(net, eps=EPS, alpha=STEP_SIZE, steps=STEPS, random_start=False)
    return lambda: attack(x, y)


def foolbox_pgd(net: nn.Module, x: Tensor, y: Tensor) -> Walk:
    peer = importlib.import_module("foolbox")
    attack = peer.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=False)
    model = peer.PyTorchModel(net, bounds=(0, 1), device="cpu")
    return lambda: attack(model, x, y, epsilons=EPS)


def art_pgd(net: nn.Module, x: Tensor, y: Tensor) -> Walk:
    evasion = importlib.import_module("art.attacks.evasion")
    estimators = importlib.import_module("art.estimators.classification")
    with torch.no_grad():
        classes = net(x[:1]).shape[1]
    shape = tuple(x.shape[1:])
    model = estimators.PyTorchClassifier(
        net, nn.CrossEntropyLoss(), shape, classes, clip_values=(0, 1), device_type="cpu"
    )
    attack = evasion.ProjectedGradientDescentPyTorch(
        model, eps=EPS, eps_step=STEP_SIZE, max_iter=STEPS, batch_size=len(x), verbose=False
    )
    images, labels = x.numpy(), y.numpy()
    return lambda: attack.generate(images, labels)


PEERS = {"torchattacks": torchattacks_pgd, "foolbox": foolbox_pgd, "ART": art_pgd}


def peer_contestants(net: nn.Module, x: Tensor, y: Tensor) -> tuple[list[Contestant], list[str]]:
    """Other libraries' PGD, each on its own copy of the network; and why some are left out."""
    present, absent = [], []
    for name, make in PEERS.items():
        try:
            make(copy.deepcopy(net), x, y)
        except ImportError as error:
            absent.append(f"{name} left out: {error} (see --peers)")
            continue

        def prepare(wrap: Callable, make: Callable = make) -> Walk:
            # the walk's own copy: some of them change gradients and modes of the network they attack
            return make(wrap(copy.deepcopy(net)), x, y)

        present.append(Contestant(name, f"{name}, PGD", prepare))
    return present, absent


def compete(contestants: list[Contestant], rounds: int) -> list[dict[str, object]]:
    """All runs in turn, round after round; one row of results for each."""
    for one in contestants:
        one.warm_up()
    for _ in range(rounds):
        for one in contestants:
            one.run()
    by_key = {one.key: one for one in contestants}
    return [result(one, [by_key[key] for key in REFERENCES]) for one in contestants]


def result(one: Contestant, references: list[Contestant]) -> dict[str, object]:
    """Medians over rounds; ratios are formed within each round."""
    row: dict[str, object] = {
        "run": one.key, "name": one.name, "forwards": one.counts[0], "backwards": one.counts[1],
    }  # fmt: skip
    for clock in ("cpu", "wall"):
        own = getattr(one, clock)
        row[f"{clock}_seconds"] = statistics.median(own)
        for reference in references:
            ratios = [mine / theirs for mine, theirs in zip(own, getattr(reference, clock), strict=True)]
            row[f"{clock}_over_{reference.key}"] = statistics.median(ratios)
    return row


def show(rows: list[dict[str, object]], title: str, notes: list[str]) -> None:
    table = Table(title=title, caption="ratios: medians over rounds; nothing is recorded but in d and e")
    table.add_column("run")
    ratios = [f"{clock}_over_{key}" for clock in ("cpu", "wall") for key in REFERENCES]
    for heading in (
        "CPU s",
        "wall s",
        *(one.replace("_over_", " / ") for one in ratios),
        "forwards",
        "backwards",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        label = f"{row['run']}  {row['name']}" if len(str(row["run"])) == 1 else str(row["name"])
        numbers = [f"{row[key]:.2f}" for key in ("cpu_seconds", "wall_seconds")]
        numbers += [f"{row[key]:.3f}" for key in ratios]
        table.add_row(label, *numbers, str(row["forwards"]), str(row["backwards"]))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)


def lockstep_line(recorder: str, ratios: dict[str, float]) -> str:
    listed = ", ".join(f"{ratio:.3f} × {key}" for key, ratio in ratios.items())
    return f"in lockstep, CPU: {recorder} = {listed}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64, help="images, all in one batch")
    parser.add_argument("--threads", type=int, help="torch's own choice where left out")
    parser.add_argument("--compile", action="store_true", help="also run e")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder that holds other libraries")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.peers:
        sys.path.append(str(options.peers.resolve()))  # behind everything that is installed
    x, y = load_images(options.batch)
    net = load_network()
    models = {"d": uncannyvalley.split(net, x)}
    if options.compile:
        models["e"] = uncannyvalley.split(net, x, compile=True)
    peers, absent = peer_contestants(net, x, y)
    rows = compete(own_contestants(net, models, x, y) + peers, options.rounds)
    steps = lockstep_medians(net, models, x, y, options.rounds)
    if options.json:
        about = {"machine": machine(), "batch": len(x), "steps": STEPS, "rounds": options.rounds}
        print(json.dumps({**about, "runs": rows, "lockstep_cpu": steps, "left_out": absent}, indent=2))
        return
    notes = [lockstep_line(key, ratios) for key, ratios in steps.items()]
    show(rows, f"{STEPS} PGD steps, {len(x)} images, {options.rounds} rounds", [*notes, machine(), *absent])


if __name__ == "__main__":
    main()
