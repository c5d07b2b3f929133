"""One forward, and at most the backwards somebody asked for: the only caller of a network in a walk."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.errors import InputError
from uncannyvalley.splitting import SplitModel
from uncannyvalley.types import CONSTRAINT_GRAD, LOG_LOSS_GRAD, OBJECTIVE_GRAD, PerExample, Probe


class Prober:
    """Makes the probes of one batch: holds what stays the same along a walk.

    With ``aims`` and no ``target``, the targets become the least likely wrong classes of the first probe.
    Calls of the network are counted: ``forwards`` and ``backwards``.
    """

    def __init__(
        self,
        model: SplitModel,
        clean: Float[Tensor, "n ..."],
        y: Int[Tensor, "n"],
        target: Int[Tensor, "n"] | None = None,
        objective: PerExample = objectives.log_loss,
        *,
        aims: bool = False,
    ) -> None:
        self.model = model
        self.clean = model.place(clean)
        self.y = y.to(model.device)
        self.target = None if target is None else target.to(model.device)
        self.owner = torch.arange(len(y), device=model.device)
        self.objective = objective
        self._needs_target = aims and target is None
        self.forwards = 0
        self.backwards = 0

    def __call__(
        self,
        x: Float[Tensor, "n ..."],
        needs: Collection[str] = (),
        previous: Float[Tensor, "n ..."] | None = None,
        constraint: PerExample | None = None,
    ) -> Probe:
        """The probe at x, with the gradients named in ``needs`` (OBJECTIVE_GRAD, LOG_LOSS_GRAD, CONSTRAINT_GRAD).

        ``previous`` is the iterate before x, for measures of the step itself; ``constraint`` a second function, for
        attacks that are held by one. Raises InputError for functions without a gradient in the image.
        """
        x = x.detach().requires_grad_(bool(needs))
        with torch.set_grad_enabled(bool(needs)):
            features = self.model.features(x)
            logits = self.model.head.logits(features)
            self.forwards += 1
            if self._needs_target:
                self.target = logits.detach().scatter(1, self.y[:, None], torch.inf).argmin(dim=1)
                self._needs_target = False
            live = self._probe(x, features, logits)
            gradients = self._gradients(live, needs, constraint)
        found = self._probe(x.detach(), features.detach(), live.logits.detach(), **gradients)
        return found if previous is None else replace(found, previous=previous)

    def _probe(self, x: Tensor, features: Tensor, logits: Tensor, **gradients: Tensor) -> Probe:
        if logits.dtype in (torch.float16, torch.bfloat16):
            features, logits = features.float(), logits.float()
        return Probe(
            x, self.clean, self.y, self.target, self.owner, features, logits, self.model.head, **gradients
        )

    def _gradients(
        self, live: Probe, needs: Collection[str], constraint: PerExample | None
    ) -> dict[str, Tensor]:
        """One backward for each different function, and the constraint's value; log loss as objective serves two needs."""
        wanted: dict[str, PerExample] = {}
        if OBJECTIVE_GRAD in needs:
            wanted[OBJECTIVE_GRAD] = self.objective
        if LOG_LOSS_GRAD in needs:
            wanted[LOG_LOSS_GRAD] = objectives.log_loss
        if CONSTRAINT_GRAD in needs:
            assert constraint is not None  # an attack that needs its gradient has one
            wanted[CONSTRAINT_GRAD] = constraint
        by_function: dict[PerExample, Tensor] = {}
        found: dict[str, Tensor] = {}
        functions = list(dict.fromkeys(wanted.values()))
        for function in functions:
            values = function(live)
            if function is constraint:
                found["constraint"] = values.detach()
            by_function[function] = self._gradient(function, values, live, last=function is functions[-1])
            if function is constraint or (function is self.objective and OBJECTIVE_GRAD in needs):
                by_function[function] = _followable(function, values, by_function[function])
        return found | {need: by_function[function] for need, function in wanted.items()}

    def _gradient(self, function: PerExample, values: Tensor, live: Probe, *, last: bool) -> Tensor:
        """∂values/∂x, zero where the network itself passes no gradient on."""
        if not values.requires_grad:
            if live.logits.requires_grad:
                raise _not_differentiable(function)
            return torch.zeros_like(live.x)
        (gradient,) = torch.autograd.grad(values.sum(), live.x, retain_graph=not last, allow_unused=True)
        self.backwards += 1
        return torch.zeros_like(live.x) if gradient is None else gradient


def _followable(function: PerExample, values: Tensor, gradient: Tensor) -> Tensor:
    """A gradient that steps are taken along: 0 where the function itself is infinite, refused where only it is not finite."""
    bad = ~torch.isfinite(gradient).flatten(1).all(dim=1)
    if not bool(bad.any()):
        return gradient
    wrong = int((bad & torch.isfinite(values)).sum())
    if wrong:
        raise InputError(
            f"the gradient of {_name_of(function)} in the image is NaN or infinite for {wrong} of {len(bad)} images whose "
            "values are finite (a root or a logarithm at 0 inside it, as a rule); no attack can follow it there"
        )
    return gradient.masked_fill(bad.view(-1, *[1] * (gradient.dim() - 1)), 0.0)


def _name_of(function: PerExample) -> str:
    return str(getattr(function, "name", None) or getattr(function, "__name__", type(function).__name__))


def _not_differentiable(function: PerExample) -> InputError:
    return InputError(
        f"{_name_of(function)} has no gradient in the image (it counts, detaches or takes an argmax), so no attack can follow it. Give "
        "a differentiable function of the probe; for an inner layer, uncannyvalley.derivatives.layer_objective.layer_sharpness"
    )


def all_needs(consumers: Iterable[Collection[str]]) -> frozenset[str]:
    """Everything that any consumer needs."""
    return frozenset().union(*consumers)
