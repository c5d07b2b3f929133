"""All that a detector sees of a batch of images: a probe of each, and the network's answers to copies of it.

A copy is the image after a small change (``mirror``), or after a short walk from it: ``climb2`` is two sign steps up the
loss of the predicted class, ``descent1`` one step down.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.detect.changes import Change, change
from uncannyvalley.errors import InputError
from uncannyvalley.splitting import SplitModel
from uncannyvalley.types import Probe

WALK_STEP = 0.5 / 255
"""Of a short walk, in units of the input's range: half a grey level."""

_WALK = re.compile(r"(climb|descent)([1-9])")

_UPWARDS = {"climb": 1.0, "descent": -1.0}


def is_walk(name: str) -> bool:
    """Whether ``name`` is a step of a short walk."""
    return _WALK.fullmatch(name) is not None


@dataclass(frozen=True)
class Look:
    """What is known of n images.

    probe   at the images, with the predicted classes as labels: no true label is ever needed
    copies  name → probe at the changed images, with those same labels
    """

    probe: Probe
    copies: dict[str, Probe] = field(default_factory=dict)

    @property
    def predicted(self) -> Int[Tensor, "n"]:
        return self.probe.y


class Looker:
    """Makes looks: calls the network once for each image and copy, and for the backwards of short walks.

    Raises InputError for copies that are neither a change nor a step of a short walk.
    """

    def __init__(self, model: SplitModel, copies: Collection[str], seed: int = 0) -> None:
        self.model = model
        self._changes: dict[str, Change] = {}
        self._walks: dict[str, int] = {}
        for name in copies:
            if walk := _WALK.fullmatch(name):
                self._walks[walk[1]] = max(self._walks.get(walk[1], 0), int(walk[2]))
            else:
                self._changes[name] = change(name, seed)

    @property
    def forwards(self) -> int:
        return 1 + len(self._changes) + sum(self._walks.values())

    @property
    def backwards(self) -> int:
        """One for each step of a walk; both walks share the first."""
        return sum(self._walks.values()) - max(0, len(self._walks) - 1)

    def __call__(self, x: Float[Tensor, "n ..."]) -> Look:
        """The look at images, without gradients; only short walks ever hold any.

        Raises InputError for images of another shape than those that the network was split on.
        """
        if tuple(x.shape[1:]) != self.model.sample_shape:
            raise InputError(
                f"a detector reads images of the shape that it was fitted to, {tuple(self.model.sample_shape)}; got "
                f"{tuple(x.shape[1:])}"
            )
        x = self.model.place(x).detach()
        with torch.set_grad_enabled(bool(self._walks)):
            probe = self._probe(x.clone().requires_grad_() if self._walks else x)
            walked = self._walked(probe)
        with torch.no_grad():
            changed = self._changed(_detached(probe))
        copies = changed | {name: _detached(one) for name, one in walked.items()}
        return Look(_detached(probe), copies)

    def at(self, probe: Probe) -> Look:
        """The look at a probe's images, differentiable where the probe is; its own forward is used.

        Directions of short walks count as constants.
        """
        if self._walks and not probe.logits.requires_grad:
            return self(probe.x)
        probe = replace(probe, y=probe.logits.detach().argmax(dim=1))
        return Look(probe, self._changed(probe) | self._walked(probe))

    def _probe(self, x: Tensor) -> Probe:
        features = self.model.features(x)
        logits = self.model.head.logits(features)
        nobody = torch.arange(len(x), device=x.device)
        probe = _exact(Probe(x, x, nobody, None, nobody, features, logits, self.model.head))
        return replace(probe, y=logits.detach().argmax(dim=1))

    def _changed(self, probe: Probe) -> dict[str, Probe]:
        return {name: self._answer(probe, fn(probe.x)) for name, fn in self._changes.items()}

    def _walked(self, probe: Probe) -> dict[str, Probe]:
        copies: dict[str, Probe] = {}
        slope = _slope(probe) if self._walks else None
        for way, length in self._walks.items():
            here, steepest = probe, slope
            for step in range(1, length + 1):
                assert steepest is not None  # there is a walk, hence a slope
                moved = (here.x + _UPWARDS[way] * WALK_STEP * steepest.sign()).clamp(0, 1)
                here = copies[f"{way}{step}"] = self._answer(probe, moved)
                if step < length:
                    steepest = _slope(here)
        return copies

    def _answer(self, probe: Probe, x: Tensor) -> Probe:
        x = self.model.place(x)
        features = self.model.features(x)
        return _exact(replace(probe, x=x, features=features, logits=self.model.head.logits(features)))


def _slope(probe: Probe) -> Float[Tensor, "n ..."]:
    """∂(log loss of the predicted class)/∂x."""
    loss = objectives.log_loss(probe).sum()
    (slope,) = torch.autograd.grad(loss, probe.x, retain_graph=True, allow_unused=True)
    return torch.zeros_like(probe.x) if slope is None else slope


def _exact(probe: Probe) -> Probe:
    """Logits and features in float32 at least."""
    if probe.logits.dtype in (torch.float16, torch.bfloat16):
        return replace(probe, features=probe.features.float(), logits=probe.logits.float())
    return probe


def _detached(probe: Probe) -> Probe:
    return replace(
        probe, x=probe.x.detach(), clean=probe.clean.detach(),
        features=probe.features.detach(), logits=probe.logits.detach(),
    )  # fmt: skip
