"""Pages as HTML that works from disk, offline."""

import base64
from typing import Protocol, runtime_checkable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@runtime_checkable
class Figured(Protocol):
    """A page with one figure, as SVG."""

    @property
    def figure_svg(self) -> str: ...


def from_template(name: str, page: Figured) -> str:
    """The page in the template of that name, which sees ``page`` and ``figure``, its figure as the address of an image."""
    environment = Environment(
        loader=PackageLoader("uncannyvalley.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # As an image, the figure's ids and styles cannot meet the page's.
    encoded = base64.b64encode(page.figure_svg.encode()).decode()
    figure = Markup(f"data:image/svg+xml;base64,{encoded}")
    return environment.get_template(name).render(page=page, figure=figure)
