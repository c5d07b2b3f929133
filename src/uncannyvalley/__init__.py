"""Uncanny valleys: how the loss surface bends while an input is attacked, step by step, exactly.

>>> import uncannyvalley                                                    # doctest: +SKIP
>>> model = uncannyvalley.split(net, sample)                                # doctest: +SKIP
>>> attack = uncannyvalley.attacks.pgd(eps=8 / 255, step_size=2 / 255)      # doctest: +SKIP
>>> trajectory = uncannyvalley.record(model, x, y, attack, steps=20)        # doctest: +SKIP
>>> print(uncannyvalley.phases(trajectory).summary())                       # doctest: +SKIP

Names are imported when first used, so that ``import uncannyvalley`` does not import torch.
"""

import importlib
from typing import Any

__version__ = "0.8.0"

_HOMES = {
    "split": "splitting",
    "SplitModel": "splitting",
    "record": "recording",
    "observe": "observing",
    "watch": "watching",
    "Trajectory": "trajectory",
    "phases": "analysis.phase_table",
    "diagnose": "analysis.smoothness",
    "curvature": "derivatives.engine",
    "Estimate": "derivatives.results",
    "directional_derivative": "derivatives.directional",
    "certify": "theory.certificate",
    "Bound": "theory.bound",
    "lipschitz_bound": "theory.lipschitz",
    "sampled_lipschitz": "theory.lipschitz",
    "attacked_radius": "theory.attacked",
    "valley_floor": "theory.cosine_floor",
    "ImageDetector": "detect.image_detector",
    "SharpnessDetector": "detect.sharpness_detector",
    "open_run": "run.folder",
    "open_study": "study.folder",
    "dataset_of": "study.dataset",
    "replay": "replaying.replayed_walk",
    "results": "study.results",
    "verify": "train.verifying",
    "fit": "train.fitting",
    "Recipe": "train.recipe",
    "InputError": "errors",
    "Attack": "types",
    "Measure": "types",
    "Probe": "types",
}
_ROOMS = ("adversaries", "attacks", "data", "llm", "measures", "objectives", "zoo")

__all__ = ["__version__", *_HOMES, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
        return getattr(module, name)
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
