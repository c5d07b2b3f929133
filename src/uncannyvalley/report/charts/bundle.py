"""The library that draws in the browser, as one script: Vega, Vega-Lite and Vega-Embed, from the extra ``report``."""

from functools import cache
from importlib.metadata import version
from pathlib import Path

from uncannyvalley.errors import InputError
from uncannyvalley.storing.cache import cache_folder
from uncannyvalley.storing.files import write_bytes
from uncannyvalley.storing.stamp import BLANK, is_intact, stamp


@cache
def javascript_bundle() -> str | None:
    """The script, which sets ``vegaEmbed`` and ``vega`` on the window; None where the extra is not installed.

    To make it takes longer than all else about a page, so it is kept in the cache, by the versions it is made of.
    """
    try:
        import altair
        import vl_convert
    except ImportError:
        return None
    schema = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    place = cache_folder() / f"vega-lite-{schema}-by-vl-convert-{version('vl-convert-python')}.js"
    if (kept := _kept(place)) is not None:
        return kept
    made = stamp(f"{vl_convert.javascript_bundle(vl_version=schema)}\n// {BLANK}\n".encode())  # type: ignore[call-arg]
    _keep(place, made)
    return made.decode()


def _kept(place: Path) -> str | None:
    try:
        content = place.read_bytes()
    except OSError:
        return None
    return content.decode() if is_intact(content) else None


def _keep(place: Path, content: bytes) -> None:
    """A cache that cannot be written costs only the next making."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place, content)
    except (OSError, InputError):
        return
