"""What a detector costs in production: one DetectorModule of budget 1 beside its network's own forward.

    python benchmarks/detector_cost.py [--rounds 7] [--batch 256] [--threads 1] [--only eager compiled onnx]

ResNet-20 and CIFAR-10 images, at batch 1 and at ``--batch``, in torch eager, torch.compile (inductor) and ONNX Runtime. In each:

    network   the network as it was loaded, asked for logits
    prepared  the copy of it inside the module (batch norm folded, channels last), asked for logits
    detector  the module: logits, log κ, p-value and flag

"detector / prepared" is the price of the numbers themselves, "detector / network" what changes for a service that puts the
module where its network was. CPU time, the three interleaved call by call, medians of the calls of a round and ratios of these,
medians over rounds after one that is thrown away; at batch 1 a round holds many calls. Compiling takes minutes and is not timed. The detector is fitted on the
first 400 test images and calibrated on the next 1000: its cost does not depend on how well it detects.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from recording_cost import load_images, load_network, machine
from timing import console, print_table
from torch import Tensor, nn

from uncannyvalley import data
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.serving.export import export_onnx
from uncannyvalley.detect.serving.module import DetectorModule

FITTED, CALIBRATED = 400, 1000
CALLS_AT_ONE = 100
"""In a round at batch 1, where a call takes milliseconds."""

CONTENDERS = ("network", "prepared", "detector")
Runs = dict[str, Callable[[], object]]


class Prepared(nn.Module):
    """The module's copy of the network without the detector."""

    def __init__(self, module: DetectorModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module.logits(x)


def eager(nets: dict[str, nn.Module], x: Tensor) -> Runs:
    return {name: lambda net=net: net(x) for name, net in nets.items()}


def compiled(nets: dict[str, nn.Module], x: Tensor) -> Runs:
    torch._dynamo.reset()
    return eager({name: torch.compile(net, dynamic=False) for name, net in nets.items()}, x)


def onnx(nets: dict[str, nn.Module], x: Tensor) -> Runs:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    found: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, net in nets.items():
            path = os.path.join(folder, f"{name}.onnx")
            if isinstance(net, DetectorModule):
                export_onnx(net, path, x[:1])
            else:
                plain = Prepared(net.module.in_plain_layout()).eval() if isinstance(net, Prepared) else net
                _export_plain(plain, path, x)
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            feed = {session.get_inputs()[0].name: x.numpy()}
            found[name] = lambda session=session, feed=feed: session.run(None, feed)
    return found


def _export_plain(net: nn.Module, path: str, x: Tensor) -> None:
    rows = torch.cat([x[:1], x[:1]])
    axes = ({0: torch.export.Dim("n")},)
    torch.onnx.export(
        net,
        (rows,),
        path,
        dynamo=True,
        opset_version=18,
        verbose=False,
        dynamic_shapes=axes,
        external_data=False,
    )


ENGINES = {"eager": eager, "compiled": compiled, "onnx": onnx}


def rounds_of(runs: Runs, calls: int, rounds: int) -> Iterator[dict[str, float]]:
    """CPU seconds of the median call of each, one call after the other in turn."""
    for lap in range(rounds + 1):
        spent: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(calls):
            for name, run in runs.items():
                since = time.process_time()
                run()
                spent[name].append(time.process_time() - since)
        if lap:
            yield {name: statistics.median(seconds) for name, seconds in spent.items()}


def row(engine: str, batch: int, rounds: list[dict[str, float]]) -> list[str]:
    seconds = [f"{1000 * statistics.median(one[name] for one in rounds):.3g}" for name in CONTENDERS]
    ratios = []
    for unit in ("prepared", "network"):
        found = [one["detector"] / one[unit] for one in rounds]
        ratios.append(f"{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})")
    return [engine, str(batch), *seconds, *ratios]


def fitted(net: nn.Module) -> DetectorModule:
    shared = os.environ.get("UNCANNY_SHARED", str(Path(__file__).resolve().parents[2] / "shared"))
    x = data.load(f"parquet:{shared}/data/cifar10/test.parquet")[: FITTED + CALIBRATED]
    return DetectorModule(ImageDetector(net, budget=1).fit(x[:FITTED], x[FITTED:]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=tuple(ENGINES), default=list(ENGINES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    net = load_network().requires_grad_(False)
    module = fitted(net)
    nets: dict[str, nn.Module] = {"network": net, "prepared": Prepared(module).eval(), "detector": module}
    images, _ = load_images(options.batch)
    rows = []
    for engine in options.only:
        for batch, calls in ((1, CALLS_AT_ONE), (options.batch, 1)):
            with torch.no_grad():
                runs = ENGINES[engine](nets, images[:batch])
                rows.append(row(engine, batch, list(rounds_of(runs, calls, options.rounds))))
    headings = ["engine", "batch", *(f"{name}, ms" for name in CONTENDERS)]
    headings += ["detector / prepared", "detector / network"]
    print_table(f"ResNet-20, budget 1, CPU time a call, {options.rounds} rounds", headings, rows)
    console().print(f"onnxruntime {version('onnxruntime')}, {machine()}", highlight=False)


if __name__ == "__main__":
    main()
