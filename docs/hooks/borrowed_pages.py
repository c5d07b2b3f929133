"""Pages that live elsewhere in the tree stand in the site too, and links lead to the same thing in both.

A page keeps the links that work where it lies in the tree. Here each of them is found in the tree, and written
anew for the place that page and target have in the site: pages of ``docs/`` keep theirs, ``BORROWED`` says where
pages from elsewhere go, and any other file that a page links to (a script, a table of results) is copied below
``files/``. A link to a file that is not there stays as it is, so that the strict build names it.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

BORROWED = {
    "studies/README.md": "found/studies.md",
    "studies/claims.md": "found/claims.md",
    "benchmarks/README.md": "found/benchmarks.md",
    "examples/README.md": "examples.md",
    "CONTRIBUTING.md": "about/contributing.md",
    "CHANGELOG.md": "about/changes.md",
    "README.md": "index.md",
}
"""Where pages go that do not live in docs/. The README is the forge's front page, index.md is the site's."""

_CODE_OR_LINK = re.compile(
    r"^(?P<fence>`{3,})[^\n]*\n.*?^(?P=fence)[ ]*$|`[^`\n]+`|(?P<open>\]\()(?P<target>[^)\s]+)",
    re.DOTALL | re.MULTILINE,
)


def relative_links(markdown: str) -> list[str]:
    """The targets of all links and images of a page that lead to another file of the tree."""
    found = [one["target"] for one in _CODE_OR_LINK.finditer(markdown) if one["target"]]
    return [target for target in found if _is_relative(target)]


def target_in_tree(origin: str, target: str) -> str:
    """The path, from the root of the tree, that ``target`` means in the page at ``origin``."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), unquote(urlsplit(target).path)))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Borrow the pages, and whatever else of the tree the pages of the site link to."""
    root = _root(config)
    for origin, place in BORROWED.items():
        if files.get_file_from_path(place) is None and (root / origin).is_file():
            files.append(File.generated(config, place, abs_src_path=str(root / origin)))
    for page in files.documentation_pages():
        origin = _origin(page, config)
        if origin is None:
            continue
        for target in relative_links(page.content_string):
            path = target_in_tree(origin, target)
            place = _place(path)
            if (root / path).is_file() and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links written for the site."""
    origin = _origin(page.file, config)
    if origin is None:
        return markdown
    return rewritten(markdown, lambda target: _link(page.file, origin, target, files))


def rewritten(markdown: str, link: Callable[[str], str]) -> str:
    """``markdown`` with each relative link as ``link`` writes it; code stays as it is."""

    def one(match: re.Match[str]) -> str:
        target = match["target"]
        if not target or not _is_relative(target):
            return match[0]
        return match["open"] + link(target)

    return _CODE_OR_LINK.sub(one, markdown)


def _link(page: File, origin: str, target: str, files: Files) -> str:
    place = _place(target_in_tree(origin, target))
    if files.get_file_from_path(place) is None:
        return target
    anchor = urlsplit(target).fragment
    path = posixpath.relpath(place, posixpath.dirname(page.src_uri) or ".")
    return f"{path}#{anchor}" if anchor else path


def _place(path: str) -> str:
    """Where the file at ``path`` of the tree stands in the site's sources."""
    if path in BORROWED:
        return BORROWED[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}"


def _origin(file: File, config: MkDocsConfig) -> str | None:
    """The path of a page's source from the root of the tree; None for pages made at build."""
    if file.abs_src_path is None:
        return None
    return Path(file.abs_src_path).relative_to(_root(config)).as_posix()


def _root(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent


def _is_relative(target: str) -> bool:
    parts = urlsplit(target)
    return not parts.scheme and not parts.netloc and bool(parts.path) and not parts.path.startswith("/")
