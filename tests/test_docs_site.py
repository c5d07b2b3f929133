"""The site: built strictly, whole, and without a dead link; nothing in it comes from elsewhere."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from unittest import mock
from urllib.parse import unquote, urlsplit

import pytest

import uncannyvalley
from uncannyvalley.measures import available

pytest.importorskip("material", reason="the docs site needs the extra docs")

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [
    *(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("*.md"), *(REPOSITORY / "studies").glob("*.md"),
    *(REPOSITORY / "benchmarks").glob("*.md"), *(REPOSITORY / "examples").glob("*.md"),
]  # fmt: skip


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "docs" / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sys, "path", [str(REPOSITORY / "docs" / "hooks"), *sys.path]):
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class _Html(HTMLParser):
    """Links, sources and ids of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids |= {one for one in (found.get("id"), found.get("name")) if one}
        if tag == "a" and (link := found.get("href")):
            self.links.append(link)
        elif tag in ("img", "script", "iframe", "link") and (source := found.get("src") or found.get("href")):
            self.loaded.append(source)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, _Html]:
    return {file: _Html(file.read_text()) for file in site.rglob("*.html")}


def _targets(page: Path, links: list[str], site: Path) -> Iterator[tuple[str, Path, str]]:
    """Link, file and anchor of each link that stays in the site."""
    for link in links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        path = unquote(parts.path)
        file = (
            (site / path.lstrip("/") if path.startswith("/") else page.parent / path).resolve()
            if path
            else page
        )
        yield link, file / "index.html" if file.is_dir() else file, parts.fragment


def test_no_link_of_the_site_is_dead(site: Path, pages: dict[Path, _Html]) -> None:
    dead = []
    for page, html in pages.items():
        if page.name == "404.html":
            continue
        for link, file, anchor in _targets(page, html.links + html.loaded, site):
            if not file.is_file() or (anchor and file in pages and unquote(anchor) not in pages[file].ids):
                dead.append(f"{page.relative_to(site)}: {link}")
    assert not dead, dead
    assert sum(len(html.links) for html in pages.values()) > 1000


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, _Html]) -> None:
    for page, html in pages.items():
        assert not [one for one in html.loaded if urlsplit(one).netloc], page
    styles = "".join(file.read_text() for file in site.rglob("*.css"))
    assert "url(http" not in styles
    assert "@import" not in styles


def test_links_lead_somewhere_in_the_tree_too() -> None:
    borrowed = hook("borrowed_pages")
    dead = []
    for page in PAGES:
        origin = page.relative_to(REPOSITORY).as_posix()
        for target in borrowed.relative_links(page.read_text()):
            if not (REPOSITORY / borrowed.target_in_tree(origin, target)).exists():
                dead.append(f"{origin}: {target}")
    assert not dead, dead


def test_links_in_code_are_no_links() -> None:
    borrowed = hook("borrowed_pages")
    page = "[a](a.md) `[b](b.md)`\n\n```text\n[c](c.md)\n```\n\n![d](d.png) [e](https://e.org/e.md) [f](#f)\n"
    assert borrowed.relative_links(page) == ["a.md", "d.png"]
    assert borrowed.rewritten(page, str.upper).splitlines()[0] == "[a](A.MD) `[b](b.md)`"


def test_every_public_name_has_its_entry_in_the_api(pages: dict[Path, _Html]) -> None:
    ids = {one for page, html in pages.items() if "api" in page.parts for one in html.ids}
    for name in uncannyvalley.__all__:
        found = getattr(uncannyvalley, name)
        if callable(found):
            assert f"{found.__module__}.{found.__qualname__}" in ids, name
    for room in (uncannyvalley.attacks, uncannyvalley.llm, uncannyvalley.adversaries, uncannyvalley.measures):
        for name in room.__all__:
            found = getattr(room, name)
            if callable(found):
                assert f"{found.__module__}.{found.__qualname__}" in ids, f"{room.__name__}.{name}"


def test_a_public_name_without_a_page_stops_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.exceptions import PluginError
    from mkdocs.structure.files import Files

    monkeypatch.setattr(uncannyvalley, "__all__", [*uncannyvalley.__all__, "forgotten"])
    config = MkDocsConfig(str(REPOSITORY / "mkdocs.yml"))
    config.load_dict({"site_name": "x", "docs_dir": str(REPOSITORY / "docs")})
    config.validate()
    with pytest.raises(PluginError, match="forgotten"):
        hook("made_api").on_files(Files([]), config)


def test_every_measure_attack_and_objective_is_in_the_tables(site: Path) -> None:
    from uncannyvalley.adversaries import ADVERSARIES
    from uncannyvalley.attacks import ATTACKS
    from uncannyvalley.train.objectives import KINDS

    table = (site / "reference" / "measures" / "index.html").read_text()
    own = [name for name, one in available().items() if one.fn.__module__.startswith("uncannyvalley.")]
    assert len(own) >= 25
    for name in [*own, *ATTACKS, *ADVERSARIES, *KINDS, "gcg", "random-tokens", "soft-prompt"]:
        assert f"<code>{name}</code>" in table, name


def test_docstrings_are_laid_out_as_they_were_written() -> None:
    laid_out = hook("prose_docstrings").laid_out
    text = (
        "Radii, |x_i| < r for *all* i.\n\nnet     a network, in\n        ``eval`` mode\nx, y    images\nbudgets of all\n\n"
        "    κ = Σ_s <w_s, w_s'>\n\nExample\n-------\n>>> f(1)  # doctest: +SKIP\n2"
    )
    shown = laid_out(text)
    assert "<p>Radii, |x_i| &lt; r for <em>all</em> i.</p>" in shown
    assert (
        "<tr><td><code>net</code></td><td>a network, in <code>eval</code> mode</td></tr><tr><td><code>x, y</code>"
        in shown
    )
    assert "<tr><td><code>budgets</code></td><td>of all</td></tr>" in shown
    assert "<pre>κ = Σ_s &lt;w_s, w_s&#x27;&gt;</pre>" in shown
    assert "<p><strong>Example</strong></p>" in shown
    assert "```pycon\n>>> f(1)\n2\n```" in shown
