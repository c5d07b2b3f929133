"""The page's scripts and chart specifications as markup, and the policy that lets these scripts run and no others."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from uncannyvalley.analysis.common_axis import SHARPNESS
from uncannyvalley.report.charts import bundle
from uncannyvalley.report.charts.bounds_chart import bounds_chart
from uncannyvalley.report.charts.explorer_chart import example_chart, probabilities_chart
from uncannyvalley.report.charts.roc_chart import roc_chart
from uncannyvalley.report.charts.walk_chart import walk_chart, walk_key
from uncannyvalley.report.detectors.section import DetectionSection
from uncannyvalley.report.page_numbers.payload import payload_text
from uncannyvalley.report.proofs.section import BoundsSection

OWN_SCRIPTS = (
    "elements", "decode", "quantiles", "replay", "numbers", "charts", "walk", "chooser", "explorer", "temperature",
    "downloads", "start",
)  # fmt: skip
"""Files of ``report/scripts`` in the order in which they are joined."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}; base-uri 'none'; form-action 'none'"
"""Nothing is fetched from anywhere; charts and colours of tokens set styles of elements."""


@dataclass(frozen=True)
class Inlined:
    """What the template puts into the page.

    content_security_policy  for the page's meta element
    data                     script elements of JSON: ``numbers``, and ``charts`` where there are any
    scripts                  script elements, each named by its SHA-256 in the policy
    has_charts               whether the drawing library is among them
    """

    content_security_policy: str
    data: Markup
    scripts: Sequence[Markup]
    has_charts: bool


def inline_scripts(
    payload: Mapping[str, Any],
    *,
    detections: Sequence[DetectionSection] = (),
    bounds: Sequence[BoundsSection] = (),
) -> Inlined:
    """Scripts for the numbers of a page; without the extra ``report`` there are no charts, and all else works.

    payload     as ``payload_of`` makes it
    detections  whose ROC curves are drawn: chart "roc-<section>-<panel>"
    bounds      whose steps are drawn: chart "bounds-<section>"
    """
    library = bundle.javascript_bundle()
    data = [_data("numbers", payload_text(payload))]
    if library is not None:
        data.append(_data("charts", payload_text(_charts(payload, detections, bounds))))
    texts = [own_script()] if library is None else [library, own_script()]
    return Inlined(
        policy_of(texts), Markup("\n").join(data), [_script(text) for text in texts], library is not None
    )


def own_script() -> str:
    """The page's own scripts as one, in a scope of its own."""
    folder = files("uncannyvalley.report") / "scripts"
    joined = "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in OWN_SCRIPTS)
    return f'(() => {{\n"use strict";\n{joined}}})();\n'


def policy_of(scripts: Sequence[str]) -> str:
    """The content security policy under which these scripts, byte for byte, run."""
    digests = (hashlib.sha256(text.encode()).digest() for text in scripts)
    return POLICY.format(scripts=" ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests))


def _charts(
    payload: Mapping[str, Any], detections: Sequence[DetectionSection], bounds: Sequence[BoundsSection]
) -> dict[str, Any]:
    runs = {
        run["id"]: {
            "walk": walk_chart(run), "key": walk_key(run),
            "example": example_chart(run["axis"]), "probabilities": probabilities_chart(),
        }
        for run in payload["runs"]
        if run["walks"] and SHARPNESS in run["walks"][0]["curves"]
    }  # fmt: skip
    others = {
        f"roc-{section}-{number}": roc_chart(panel, one.promised, one.smallest)
        for section, one in enumerate(detections)
        for number, panel in enumerate(one.panels)
    }
    others |= {
        f"bounds-{section}": bounds_chart(one.steps) for section, one in enumerate(bounds) if one.steps
    }
    return {"runs": runs, "others": others}


def _data(name: str, text: str) -> Markup:
    return Markup(f'<script type="application/json" id="{name}">{text}</script>')


def _script(text: str) -> Markup:
    """Raises ValueError for a text that would end its own element, which escapes cannot mend."""
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("a script of the page holds </script or <!--, which would end it early")
    return Markup(f"<script>{text}</script>")
