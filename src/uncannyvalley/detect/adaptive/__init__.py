"""Attackers who know the detector: what is left of it once they do, and whether that number can be trusted."""

from uncannyvalley.detect.adaptive.attacker import Attacker, Search, Walker
from uncannyvalley.detect.adaptive.attackers import attackers
from uncannyvalley.detect.adaptive.attacking import attack_detector
from uncannyvalley.detect.adaptive.black_box import BlackBox, Guarded
from uncannyvalley.detect.adaptive.combined import combined
from uncannyvalley.detect.adaptive.expectation import expected_suspicion
from uncannyvalley.detect.adaptive.imitation import Guides, imitation
from uncannyvalley.detect.adaptive.table import AdaptiveRow, AdaptiveTable

__all__ = [
    "AdaptiveRow", "AdaptiveTable", "Attacker", "BlackBox", "Guarded", "Guides", "Search", "Walker", "attack_detector",
    "attackers", "combined", "expected_suspicion", "imitation",
]  # fmt: skip
