"""What tests read off a page without a browser: its numbers, and what a reader without scripts sees."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from uncannyvalley.report.page_numbers.packing import unpack

SCRIPT = re.compile(r"<script[^>]*>.*?</script>", re.DOTALL)


def numbers_of(page: str | Path) -> dict[str, Any]:
    """The payload of a page, given as text or file."""
    text = page.read_text(encoding="utf-8") if isinstance(page, Path) else page
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def values_of(run: dict[str, Any], name: str) -> np.ndarray:
    """(examples, rows) of one run of a payload."""
    return unpack(run["values"][name])


def without_scripts(page: str) -> str:
    """The page without its script elements."""
    return SCRIPT.sub("", page)


class Reader(HTMLParser):
    """What a browser would see: tags, addresses, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self._silent = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data
