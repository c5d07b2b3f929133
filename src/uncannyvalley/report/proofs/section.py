"""What a page shows of bounds and certificates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uncannyvalley.report.detectors.section import ResultTable


@dataclass(frozen=True, kw_only=True)
class BoundsSection:
    """Loss changes under their bounds, or certified radii. Every text is escaped; only the figure is markup of this package.

    steps        of bounds: one mapping a step of the walk, medians over examples in nats; empty for radii
    assumptions  what the certified numbers rest on, one sentence each
    """

    title: str
    lead: str
    figure_svg: str
    caption: str
    tables: Sequence[ResultTable]
    assumptions: Sequence[str]
    provenance: Mapping[str, str]
    command: str
    steps: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
