"""One forward, and at most the backwards somebody asked for: the only caller of a network in a walk."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.splitting import SplitModel
from uncannyvalley.types import LOG_LOSS_GRAD, OBJECTIVE_GRAD, PerExample, Probe


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
    ) -> Probe:
        """The probe at x, with the gradients named in ``needs`` (OBJECTIVE_GRAD, LOG_LOSS_GRAD).

        ``previous`` is the iterate before x, for measures of the step itself.
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
            gradients = self._gradients(live, needs)
        found = self._probe(x.detach(), features.detach(), live.logits.detach(), **gradients)
        return found if previous is None else replace(found, previous=previous)

    def _probe(self, x: Tensor, features: Tensor, logits: Tensor, **gradients: Tensor) -> Probe:
        if logits.dtype in (torch.float16, torch.bfloat16):
            features, logits = features.float(), logits.float()
        return Probe(
            x, self.clean, self.y, self.target, self.owner, features, logits, self.model.head, **gradients
        )

    def _gradients(self, live: Probe, needs: Collection[str]) -> dict[str, Tensor]:
        """One backward for each different function; log loss as objective serves both needs."""
        wanted: dict[str, PerExample] = {}
        if OBJECTIVE_GRAD in needs:
            wanted[OBJECTIVE_GRAD] = self.objective
        if LOG_LOSS_GRAD in needs:
            wanted[LOG_LOSS_GRAD] = objectives.log_loss
        by_function: dict[PerExample, Tensor] = {}
        functions = list(dict.fromkeys(wanted.values()))
        for function in functions:
            total = function(live).sum()
            if not total.requires_grad:  # the network detaches: no gradient at all
                by_function[function] = torch.zeros_like(live.x)
                continue
            (gradient,) = torch.autograd.grad(
                total, live.x, retain_graph=function is not functions[-1], allow_unused=True
            )
            by_function[function] = torch.zeros_like(live.x) if gradient is None else gradient
            self.backwards += 1
        return {need: by_function[function] for need, function in wanted.items()}


def all_needs(consumers: Iterable[Collection[str]]) -> frozenset[str]:
    """Everything that any consumer needs."""
    return frozenset().union(*consumers)
