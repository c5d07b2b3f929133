"""What the shares say, in words: is this sharpness, or confidence?"""

import math

from uncannyvalley.analysis.prompt_reading import prompt_reading
from uncannyvalley.analysis.summary import PhaseSummary, WalkSummary


def reading(summary: PhaseSummary) -> str:
    """One paragraph on what log κ was made of along this walk, said on every run."""
    if summary.subject == "prompt":
        return prompt_reading(summary)
    walk = summary.walks[0]
    low, high = summary.log_geometry_band
    width = high - low
    band = f"{width:.2f} nats wide" if math.isfinite(width) else f"below {high:.2f}"
    lines = [
        "At the head, sharpness is exactly confidence times norm: log κ = log Gini + 2 log|φ| + log geometry, and the "
        f"head's weights alone confine the last term to a band ({band}).",
        _walk_words(walk),
    ]
    assist = next((one for one in summary.walks if one.name == "assist"), None)
    if assist is not None and walk.name != "assist" and not math.isnan(assist.depth.value):
        lines.append(_assist_words(assist.depth.value))
    return " ".join(line for line in lines if line)


def _assist_words(depth: float) -> str:
    if depth < 0:  # far from confident at first: κ climbs while the network grows sure
        return f"The assist control, which grows confident without any flip, rises by {-depth:.1f} nats."
    return (
        f"The assist control, which grows confident without any flip, falls by {depth:.1f} nats: a fall by itself is not "
        "the mark of an attack."
    )


def _walk_words(walk: WalkSummary) -> str:
    change = walk.shares["change"]
    total = change["change"]
    if math.isnan(total) or walk.examples == 0:
        return ""
    verb = "fell" if total < 0 else "rose"
    return (
        f"From the clean image to the last step log κ {verb} by {abs(total):.1f} nats on average ({walk.name}): "
        f"{change['change_gini']:+.1f} confidence (Gini), {change['change_norm']:+.1f} feature norm, "
        f"{change['change_geometry']:+.1f} geometry of the head."
    )
