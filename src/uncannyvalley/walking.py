"""The only loop of our own attacks: probe, step, probe, …, and how much of it is recorded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from uncannyvalley.attacks.streams import Streams
from uncannyvalley.checks import check_count
from uncannyvalley.errors import InputError
from uncannyvalley.measures import resolve
from uncannyvalley.probe import Prober, all_needs
from uncannyvalley.types import OBJECTIVE_GRAD, Attack, Measure, Probe

ALWAYS = ("distance_linf", "distance_l2")
"""Measures that every trajectory holds, before the chosen ones."""

KEEP = ("logits", "features")


@dataclass(frozen=True)
class Recording:
    """How walks are recorded: everything about them except model, data and attack.

    steps     steps of a walk       every     row 0, each ``every``-th and the last are recorded
    measures  what is read          restarts  walks from one image, each with its own random numbers
    seed      of all streams        keep      "logits" or "features" to store them too, or None
    """

    steps: int
    measures: tuple[Measure, ...] = field(default_factory=lambda: resolve(None))
    seed: int = 0
    restarts: int = 1
    every: int = 1
    keep: str | None = None

    def __post_init__(self) -> None:
        check_count("steps", self.steps, 1)
        check_count("restarts", self.restarts, 1)
        check_count("every", self.every, 1)
        check_count("seed", self.seed, 0)
        if self.keep is not None and self.keep not in KEEP:
            raise InputError(f"keep must be 'logits' or 'features', got {self.keep!r}")
        # with the logits, |φ| is all that any head measure needs
        wanted = resolve([*ALWAYS, *self.measures, *(["feature_norm"] if self.keep else [])])
        object.__setattr__(self, "measures", wanted)

    def rows(self, attack: Attack) -> int:
        """Rows of a whole walk."""
        return 1 + (attack.start is not None) + self.steps

    def last_row(self, attack: Attack) -> int:
        """The last row that the attack reaches: one that takes few steps stops earlier."""
        limit = self.steps if attack.max_steps is None else min(self.steps, attack.max_steps)
        return self.rows(attack) - 1 - (self.steps - limit)

    def keeps(self, row: int, attack: Attack) -> bool:
        """Whether a row is recorded: the clean point, each ``every``-th and the last."""
        return row % self.every == 0 or row == self.last_row(attack)


class MaskingGuard:
    """Refuses an attack that cannot move: its walk would be a flat line that looks like robustness.

    Fires once ``ENOUGH`` images, or all ``total`` of them, had a gradient of exactly zero and none had any.
    Single images without a gradient are no error; the diagnostics count them.
    """

    ENOUGH = 64

    def __init__(self, total: int) -> None:
        self._needed = min(total, self.ENOUGH)
        self._seen = 0
        self._any_moves = False

    def see(self, probe: Probe, attack: Attack) -> None:
        """Look at the probe that the first step of a batch starts from."""
        gradient = probe.objective_grad
        if OBJECTIVE_GRAD not in attack.needs or gradient is None or self._any_moves:
            return
        self._seen += len(gradient)
        self._any_moves = bool(gradient.any())
        if not self._any_moves and self._seen >= self._needed:
            raise InputError(
                f"the gradient of the loss is exactly zero for all of {self._seen} images, so {attack.name} cannot "
                "move: the model masks its gradient (rounding, thresholds, detach, a dead layer). Replace the step "
                "that stops it by a differentiable one"
            )


def walk(
    prober: Prober,
    attack: Attack,
    recording: Recording,
    ids: Sequence[int],
    restart: int = 0,
    masking: MaskingGuard | None = None,
) -> Iterator[tuple[int, Probe]]:
    """The probes of one walk, row by row: the clean point, a random start if any, then each step.

    Twenty steps cost 21 forwards and at most 21 backwards (22 and 22 with a random start). Only a targeted attack
    whose input gradient norms are measured needs a second backward a row: these are gradients of two functions. An
    attack that is held by a constraint needs one more.

    Where the attack stops rows early, they stay where they stopped, ``Probe.recorded`` says which rows belong to the
    record, and the walk ends with the last row that stops.
    """
    measured = all_needs(one.needs for one in recording.measures)
    last = recording.last_row(attack)
    stopping = _Stopping(attack, recording, prober)

    def probe_at(x: Tensor, row: int, moves_on: bool, before: Probe | None = None) -> Probe:
        needs = attack.needs if moves_on else frozenset()
        wanted = needs | measured if attack.stops or recording.keeps(row, attack) else needs
        probe = prober(x, wanted, None if before is None else before.x, attack.constraint)
        _check_finite(probe, ids, row)
        return probe

    def draws(row: int) -> Streams:
        return Streams(recording.seed, ids, restart, row)

    probe = probe_at(prober.clean, 0, moves_on=attack.start is None)
    state = attack.init(probe, draws(0))
    yield 0, stopping.look(0, probe, state)
    first = 1
    if attack.start is not None and not stopping.all_stopped:
        x = stopping.hold(probe.x, attack.start(probe, draws(0)))
        probe = probe_at(x, first, moves_on=True, before=probe)
        yield first, stopping.look(first, probe, state)
        first += 1
    if masking is not None:
        masking.see(probe, attack)
    for row in range(first, last + 1):
        if stopping.all_stopped:
            return
        x, state = attack.step(probe, state, prober, draws(row))
        probe = probe_at(stopping.hold(probe.x, x), row, moves_on=row < last, before=probe)
        yield row, stopping.look(row, probe, state)


class _Stopping:
    """Which rows of a walk have stopped; without a rule that stops them it does nothing."""

    def __init__(self, attack: Attack, recording: Recording, prober: Prober) -> None:
        self._attack = attack
        self._recording = recording
        self._stopped = torch.zeros_like(prober.y, dtype=torch.bool)

    @property
    def all_stopped(self) -> bool:
        return self._attack.stops is not None and bool(self._stopped.all())

    def hold(self, before: Tensor, x: Tensor) -> Tensor:
        """Rows that stopped stay where they were."""
        if self._attack.stops is None:
            return x
        return torch.where(self._stopped.view(-1, *[1] * (x.dim() - 1)), before, x)

    def look(self, row: int, probe: Probe, state: object) -> Probe:
        """The probe with its rows that belong to the record: of those still walking all at rows that are kept, and
        at any row those that stop here."""
        if self._attack.stops is None:
            return probe
        with torch.no_grad():
            ends = self._attack.stops(probe, state)
        walking = ~self._stopped
        self._stopped = self._stopped | ends
        return replace(
            probe, recorded=walking if self._recording.keeps(row, self._attack) else walking & ends
        )


def _check_finite(probe: Probe, ids: Sequence[int], row: int) -> None:
    finite = torch.isfinite(probe.logits).all(dim=1)
    if not finite.all():
        example = ids[int((~finite).nonzero()[0])]
        raise InputError(
            f"the model gave NaN or infinite logits for example {example} at row {row} of its walk; "
            "check the model's weights and its number type (float16 overflows above 65504)"
        )
