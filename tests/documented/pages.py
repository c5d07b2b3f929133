"""A page as pytest sees it: its blocks in order, one namespace, one folder of its own."""

import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from jaxtyping import config
from sybil import Document, Example, Region

from documented.blocks import blocks_of, sizes_as_written
from documented.commands import run_block
from documented.marks import mark_before
from documented.sizes import QUICK, small_source
from documented.world import World

_PAGE = "__page__"

PAGES = (
    "README.md", "CONTRIBUTING.md", "docs/*.md", "docs/howto/*.md", "examples/README.md", "studies/README.md",
    "studies/claims.md", "benchmarks/README.md",
)  # fmt: skip
"""Whose blocks are run, from the root of the tree."""


@functools.cache
def _cache() -> tempfile.TemporaryDirectory[str]:
    """Where all pages find the demo network once one of them has trained it."""
    return tempfile.TemporaryDirectory(prefix="page-cache-")


class Page:
    """The folder in which a page's blocks run, and what they may have changed."""

    def __init__(self) -> None:
        from uncannyvalley.measures import registry

        self.before, self.environment = Path.cwd(), dict(os.environ)
        self.path, self.measures = list(sys.path), dict(registry._REGISTRY)
        self.root = Path(tempfile.mkdtemp(prefix="page-"))
        folder = self.root / "work"
        folder.mkdir()
        os.chdir(folder)
        os.environ.setdefault("UNCANNY_CACHE", _cache().name)
        os.environ |= {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.world = World(folder)

    def close(self) -> None:
        """Everything as it was before the page."""
        import matplotlib.pyplot as plt

        from uncannyvalley.measures import registry

        plt.close("all")
        os.chdir(self.before)
        for name in set(os.environ) - set(self.environment):
            del os.environ[name]
        os.environ |= self.environment
        sys.path[:] = self.path
        registry._REGISTRY.clear()
        registry._REGISTRY |= self.measures
        shutil.rmtree(self.root, ignore_errors=True)


def close_page(namespace: dict[str, Any]) -> None:
    """Called when the last block of a page has run."""
    if _PAGE in namespace:
        namespace[_PAGE].close()


def _page(example: Example) -> Page:
    if _PAGE not in example.namespace:
        example.namespace |= {_PAGE: Page(), "__name__": "page"}
    return example.namespace[_PAGE]


@contextmanager
def _as_users_run_it() -> Iterator[None]:
    """Without the shape checks that tests/conftest.py may have installed in this process."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)


def run(example: Example) -> None:
    """One block in the namespace and the folder of its page; blocks that are not run here are skipped with their reason."""
    text, block = example.document.text, example.parsed
    mark = mark_before(text, example.region.start)
    if mark.not_run is not None:
        pytest.skip(f"not run: {mark.not_run}")
    page = _page(example)
    page.world.make_for(block.source)
    with _as_users_run_it(), mock.patch.dict(os.environ, {QUICK: ""} if sizes_as_written(text) else {}):
        if block.title is not None:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.source)
        if block.language == "python":
            source = "\n" * (example.line + block.source.line_offset) + small_source(block.source)
            exec(compile(source, example.path, "exec", dont_inherit=True), example.namespace)
        elif block.language == "bash":
            run_block(block.source, mark.exit_code)


def parse(document: Document) -> Iterable[Region]:
    """The parser that sybil calls for each page."""
    for region in blocks_of(document):
        region.evaluator = run
        yield region
