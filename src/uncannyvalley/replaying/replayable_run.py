"""A run and its controls, as recorded and under another head, each with its phases."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from uncannyvalley.analysis.phase_table import NEEDED, Phases, phases
from uncannyvalley.head import Head
from uncannyvalley.replaying.kept_walk import KeptWalk, kept_walk
from uncannyvalley.replaying.replayed_walk import ChosenHead, chosen_head, replay_kept
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.request import doubts_of

SHOWN_MEASURES = (*NEEDED, "loss", "confidence")
"""What phases need and figures draw."""


@dataclass(frozen=True)
class ReplayableRun:
    """A run folder that kept logits or features.

    controls  its control walks that are there, which kept the same
    """

    run: RunFolder
    walk: KeptWalk
    controls: dict[str, KeptWalk]
    restart: int = 0

    @cached_property
    def recorded(self) -> Phases:
        """The phases as recorded, beside the controls."""
        controls = {name: one.recorded() for name, one in self.controls.items()}
        doubts = doubts_of(self.run)
        return phases(self.walk.recorded(), controls, restart=self.restart, diagnostics=doubts)

    def head(self, temperature: float | int | None, head: "Head | str | Path | None") -> ChosenHead:
        """What to replay with; a smoothed head is fitted once, to the clean features of the attack's walk."""
        return chosen_head(self.walk, temperature, head)

    def under(self, chosen: ChosenHead, measures: Sequence[str] | None = SHOWN_MEASURES) -> Phases:
        """The phases of the replayed walk beside those of the replayed controls; ``measures`` as in ``replay``."""
        controls = {name: replay_kept(one, chosen, measures) for name, one in self.controls.items()}
        return phases(replay_kept(self.walk, chosen, measures), controls, restart=self.restart)


def replayable_run(run: RunFolder, restart: int = 0) -> ReplayableRun:
    """``run`` with its controls; InputError where it kept nothing to replay."""
    walk = kept_walk(run)
    controls = {name: kept_walk(one) for name, one in run.control_folders().items() if one.is_begun}
    return ReplayableRun(run, walk, controls, restart)
