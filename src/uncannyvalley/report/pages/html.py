"""Pages as HTML that works from disk, offline."""

import base64
from typing import Any, Protocol, runtime_checkable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@runtime_checkable
class Figured(Protocol):
    """A page with one figure, as SVG."""

    @property
    def figure_svg(self) -> str: ...


def from_template(name: str, page: Any, **more: Any) -> str:
    """The page in the template of that name, which sees ``page`` and ``more``; every text of them is escaped.

    A template sees the figure of a Figured page as ``figure``, the address of an image; ``|as_image`` makes one of any SVG.
    """
    environment = Environment(
        loader=PackageLoader("uncannyvalley.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["as_image"] = svg_address
    figured = {"figure": svg_address(page.figure_svg)} if isinstance(page, Figured) else {}
    return environment.get_template(name).render(page=page, **figured, **more)


def svg_address(svg: str) -> Markup:
    """An SVG as a data URI: as an image, its ids and styles cannot meet the page's."""
    encoded = base64.b64encode(svg.encode()).decode()
    return Markup(f"data:image/svg+xml;base64,{encoded}")
