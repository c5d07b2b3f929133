"""The flatness bound against what really happened: along a recorded walk, step by step."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from uncannyvalley import zoo
from uncannyvalley.attacks import pgd
from uncannyvalley.errors import InputError
from uncannyvalley.recording import record
from uncannyvalley.run.certifying import SAMPLED_IMAGES
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.request import Request, load_images, load_model
from uncannyvalley.splitting import SplitModel, split
from uncannyvalley.theory.lipschitz import Lipschitz, lipschitz_bound, sampled_lipschitz
from uncannyvalley.theory.loss_bound import head_diameter, loss_change_bound, tightness
from uncannyvalley.trajectory import Trajectory

NEEDED = (
    "loss", "log_feature_gradient_norm", "log_relative_sharpness", "feature_norm", "distance_l2",
)  # fmt: skip


@dataclass(frozen=True)
class LossBounds:
    """Loss changes of a walk and their bounds, (examples, rows), in nats.

    distance   |δ| in L2 pixels       change    ℓ(x + δ) − ℓ(x)
    certified  bound with the certified L     estimated  the same formula with the sampled L: no bound
    """

    distance: np.ndarray
    change: np.ndarray
    certified: np.ndarray
    estimated: np.ndarray
    constants: tuple[Lipschitz, Lipschitz]

    def steps(self) -> list[dict[str, float]]:
        """Medians over examples, step by step, with the largest ratio change/bound and how often it passes 1."""
        rows = []
        for step in range(1, self.distance.shape[1]):
            moved = self.distance[:, step] > 0
            if not moved.any():
                continue
            change = self.change[moved, step]
            row: dict[str, float] = {
                "step": step,
                "distance": float(np.median(self.distance[moved, step])),
                "change": float(np.median(change)),
            }
            for name in ("certified", "estimated"):
                bound = getattr(self, name)[moved, step]
                row |= {
                    name: float(np.median(bound)),
                    f"{name}_tightness": float(tightness(change, bound).max()),
                    f"{name}_broken": int((change > bound).sum()),
                }
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON takes; None for what is not finite."""
        certified, sampled = self.constants
        steps = [
            {name: value if math.isfinite(value) else None for name, value in row.items()}
            for row in self.steps()
        ]
        return {
            "examples": len(self.change), "lipschitz": {"certified": certified.value, "sampled": sampled.value}, "steps": steps,
            "assumptions": [*certified.assumptions, "L holds on the segment from the clean image to the iterate"],
        }  # fmt: skip


def model_of_run(run: RunFolder, spec: str | None, arguments: dict[str, str]) -> SplitModel:
    """The network that a run recorded, loaded again; its fingerprint must be the run's.

    Code is executed only where the user names it, so a run of FILE.py needs ``spec`` again.
    """
    plan = run.plan.model
    if spec is None and zoo.runs_code(plan.spec, plan.arguments):
        raise InputError(
            f"the run was recorded with --model {plan.spec}; name it again with --model (and its --model-arg): code is run "
            "only where you name it"
        )
    net = zoo.load(spec or plan.spec, arguments or plan.arguments, weights=plan.weights or None)
    if zoo.fingerprint(net) != plan.fingerprint:
        raise InputError(
            f"{spec or plan.spec} is not the network of this run: its weights have another SHA-256"
        )
    sample = _clean_images(run)
    return split(net, sample, plan.head, prepare=False)


def _clean_images(run: RunFolder) -> torch.Tensor:
    kept = run.images()
    pixels = [steps[0][1] for steps in kept.values() if 0 in steps]
    if not pixels:
        raise InputError(
            f"{run.path} kept no images, which the constants are sampled at; record with --keep-images 64"
        )
    return torch.from_numpy(np.stack(pixels))


def bound_run(run: RunFolder, spec: str | None = None, arguments: dict[str, str] | None = None) -> LossBounds:
    """The bound of every recorded iterate from what was recorded at its clean image, and the change that came.

    Raises InputError where the run lacks a measure, or the model an operation's rule.
    """
    trajectory = run.trajectory
    missing = [name for name in NEEDED if name not in trajectory.measures]
    if missing:
        raise InputError(
            f"{run.path} lacks {', '.join(missing)}, which the bound needs; record without --measures"
        )
    model = model_of_run(run, spec, arguments or {})
    constants = (lipschitz_bound(model), sampled_lipschitz(model, _clean_images(run)[:SAMPLED_IMAGES]))
    return bounds_along(trajectory, head_diameter(model.head), constants)


def bound_walk(request: Request) -> LossBounds:
    """The bound along a fresh walk of PGD: what ``bound_run`` does for a recorded one."""
    images = load_images(request)
    model, _ = load_model(request, images)
    steps = request.steps or 10
    attack = pgd(request.ball_norm, eps=request.ball_eps, step_size=2.5 * request.ball_eps / steps)
    trajectory = record(
        model, images[:], images.labels, attack, steps=steps, measures=NEEDED, seed=request.seed
    )
    constants = (lipschitz_bound(model), sampled_lipschitz(model, images[: min(SAMPLED_IMAGES, len(images))]))
    return bounds_along(trajectory, head_diameter(model.head), constants)


def bounds_along(
    trajectory: Trajectory, diameter: float, constants: tuple[Lipschitz, Lipschitz]
) -> LossBounds:
    """The bounds of a walk from its own columns; nothing is asked of the network."""
    clean = {name: trajectory.column(name)[:, :1] for name in NEEDED}
    variance = np.exp(clean["log_relative_sharpness"] - 2 * np.log(clean["feature_norm"]))
    gradient = np.exp(clean["log_feature_gradient_norm"])
    recorded = ~np.isnan(trajectory.column("loss")).any(axis=0)
    distance = trajectory.column("distance_l2")[:, recorded]
    bounds = [
        loss_change_bound(gradient, variance, diameter, one.value, distance).numpy() for one in constants
    ]
    loss = trajectory.column("loss")[:, recorded]
    return LossBounds(distance, loss - loss[:, :1], bounds[0], bounds[1], constants)
