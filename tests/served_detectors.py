"""Detectors as modules, compiled and in ONNX Runtime, beside themselves; prints the differences as JSON.

Run as a program, not imported: neither a compiler nor an export traces the checks of shapes that tests put around every function.
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from uncannyvalley import measures
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.recipes import recipe_of
from uncannyvalley.detect.serving.export import export_onnx
from uncannyvalley.detect.serving.module import DetectorModule

KINDS = {
    "compiled": (("budget 4", 4, 4), ("40 classes", 40, 1)),
    "onnx": (("budget 1", 4, 1), ("budget 4", 4, 4)),
}
"""Engine → names, classes and budgets of the detectors that it serves."""

NAMES = ("logits", "log_relative_sharpness", "p_value", "flag", "suspicion")

Served = Callable[[Tensor], list[np.ndarray]]


def network(classes: int = 4, surer: float = 12.0) -> nn.Module:
    """Random, on 3 x 8 x 8 images, with logits far apart."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(108, classes),
    )  # fmt: skip
    with torch.no_grad():
        net(images(64, 0))
        net[-1].weight *= surer
    return net.eval()


def images(count: int, seed: int) -> Tensor:
    """Noise, every fifth image grey: those tie, at a grain of 0."""
    found = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    found[::5] = found[::5, :1]
    return found


def asked() -> Tensor:
    """Images of the fitted kind, others that are not, one of a single colour, and one that is broken in a pixel."""
    flat = torch.tensor([0.2, 0.6, 0.9]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    broken = images(3, 7)[1:2]
    broken[0, 1, 3, 3] = torch.nan
    return torch.cat([images(25, 5), images(10, 6).round(), flat, torch.zeros_like(flat), broken])


def differences(served: Served, detector: ImageDetector, few: int) -> dict[str, float]:
    """Largest difference of each output from the detector's own, for batches of many and of few."""
    found = [np.concatenate(one) for one in zip(served(asked()), served(images(few, 8)), strict=True)]
    broken = len(asked()) - 1
    assert found[3][broken], "a broken image is flagged"
    assert found[2][broken] == found[2].min() == 1 / (len(detector.calibration.scores) + 1)
    whole = torch.cat([asked()[:broken], images(few, 8)])
    found = [np.delete(one, broken, axis=0) for one in found]
    look = detector.fitted.looker(whole)
    expected = [
        look.probe.logits.numpy(),
        measures.available()["log_relative_sharpness"](look.probe).detach().numpy(),
        detector.p_values(whole),
        detector.predict(whole) == -1,
        -detector.score_samples(whole),
    ]
    assert 0 < expected[3].sum() < len(whole)
    apart = [np.abs(a.astype(float) - b) / (1 + np.abs(b)) for a, b in zip(found, expected, strict=True)]
    return {name: float(one.max()) for name, one in zip(NAMES, apart, strict=True)}


def compiled(module: DetectorModule) -> Served:
    torch._dynamo.reset()
    run = torch.compile(module.scored, backend="eager", fullgraph=True, dynamic=True)

    def served(x: Tensor) -> list[np.ndarray]:
        with torch.no_grad():
            verdict, suspicion = run(x)
        return [one.numpy() for one in (*verdict, suspicion)]

    return served


def exported(module: DetectorModule) -> Served:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/detector.onnx"
        export_onnx(module, path, images(1, 1), suspicion=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert tuple(one.name for one in session.get_outputs()) == NAMES
    return lambda x: session.run(None, {"images": x.numpy()})


def main() -> None:
    engines = {"compiled": compiled}
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        engines["onnx"] = exported
    warnings.simplefilter("ignore")  # of compilers
    found: dict[str, dict[str, float]] = {}
    for engine, make in engines.items():
        for name, classes, budget in KINDS[engine]:
            detector = ImageDetector(network(classes), fpr=0.1, recipe=recipe_of(budget))
            detector.fit(images(120, 3), images(80, 4))
            few = 3 if engine == "compiled" else 1  # a compiler makes a new graph for batches of one
            found[f"{engine}, {name}"] = differences(make(DetectorModule(detector)), detector, few)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
