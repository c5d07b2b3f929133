"""How far several tensors spread together: less than each alone would allow, where they share what they know."""

import math
from collections.abc import Sequence

from uncannyvalley.theory.flow import Base, Flow
from uncannyvalley.theory.linear_maps import ROUND_UP, Selection, selection_norm


def joint_lipschitz(flows: Sequence[Flow]) -> float:
    """Of the tensors laid side by side: exact for selections of one base, √(Σ L²) over different bases."""
    groups: dict[Base, list[Selection]] = {}
    for flow in _whole_again(flows):
        base, selection = flow.selected()
        groups.setdefault(base, []).append(selection)
    if len(groups) == 1:
        base, parts = next(iter(groups.items()))
        return selection_norm(parts, base.entries) * base.lipschitz
    squares = [(selection_norm(parts, base.entries) * base.lipschitz) ** 2 for base, parts in groups.items()]
    return math.sqrt(sum(squares)) * ROUND_UP


def _whole_again(flows: Sequence[Flow]) -> list[Flow]:
    """Two halves of the same sources replaced by the sources, of which they are a 1-Lipschitz function together.

    max(a, b) and min(a, b) sort two numbers, and so do largest and smallest along an axis; relu(a) and
    relu(−a) are the parts of a above and below 0. None of them lengthens a difference.
    """
    left = list(flows)
    result: list[Flow] = []
    while left:
        flow = left.pop()
        partner = next((one for one in left if _complete(flow, one)), None)
        if partner is None or flow.base.half is None:
            result.append(flow)
        else:
            left.remove(partner)
            result += flow.base.half.sources
    return result


def _complete(flow: Flow, other: Flow) -> bool:
    """Whether the two are unmoved, unscaled halves of the same sources."""
    here, there = flow.base.half, other.base.half
    if here is None or there is None or flow.settled() is not flow.base or other.settled() is not other.base:
        return False
    if here.kind == there.kind == "relu":
        (one,), (two,) = here.sources, there.sources
        return one.negative_of is two or two.negative_of is one
    # the very same tensors: an added constant already breaks the order, so each addition makes a new flow
    same = sorted(map(id, here.sources)) == sorted(map(id, there.sources))
    return same and {here.kind, there.kind} == {"max", "min"} and here.axes == there.axes
