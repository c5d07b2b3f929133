"""The ROC curves of an evaluation as numbers, in the panels that figures and pages show."""

import numpy as np

from uncannyvalley.detect.evaluation.outcome import Evaluation
from uncannyvalley.report.detectors.section import RocLine, RocPanel

MOST_BASELINES = 8
"""Drawn beside the detector: those that flag most of its worst attack."""


def roc_panels(found: Evaluation, name: str) -> list[RocPanel]:
    """The detector attack by attack, and at its worst attack beside baselines."""

    def line(detector: str, attack: str, title: str, strong: bool) -> RocLine:
        outcome = found.detectors[detector]
        one = outcome.attacks[attack]
        at = (outcome.clean.right.value, one.flagged.value)
        false, true = (np.array(rates) for rates in one.roc)
        return RocLine(title, false, true, promised=at, strong=strong)

    outcome = found.detectors[name]
    counted = [attack for attack, one in outcome.attacks.items() if one.counted]
    panels = [RocPanel("attack by attack", [line(name, one, one, one == outcome.worst) for one in counted])]
    others = [one for one in found.detectors if one != name]
    if others and outcome.worst is not None:
        worst = outcome.worst
        others.sort(key=lambda one: -found.detectors[one].attacks[worst].flagged.value)
        lines = [line(name, worst, name, True)]
        lines += [line(one, worst, one, False) for one in others[:MOST_BASELINES]]
        panels.append(RocPanel(f"its worst attack ({worst}), beside baselines", lines))
    return panels
