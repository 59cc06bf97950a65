"""What MkDocs calls to build the site (mkdocs.yml): pages that are no files of docs/, and links between pages."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from docs.pages import drawn, links, reference

FOUND_FIRST = {"glossary.md": 4, "cite.md": 4, "tutorial.md": 0.5, "changelog.md": 0.1}
"""How much a page counts in the search: what defines a word comes before what uses it."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written from code, and those of files outside docs/ that documents link to."""
    for page, content in {**reference.pages(), **drawn.pages()}.items():
        files.append(File.generated(config, page, content=content))
    waiting = [links.DOCS + file.src_uri for file in files.documentation_pages() if file.generated_by is None]
    waiting += [path for path in links.PAGES if path.endswith(".md")]
    while waiting:
        path = waiting.pop()
        text = (links.ROOT / path).read_text(encoding="utf-8")
        place = links.page_of(path)
        if place and place not in files.src_uris:
            files.append(File.generated(config, place, content=_shown(path, text)))
        if path.endswith(".md"):
            known = {*files.src_uris, *map(links.page_of, waiting), None}
            waiting += [linked for linked in links.found(text, path) if links.page_of(linked) not in known]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let a document's links lead to pages, and name them by their titles."""
    place = page.file.src_uri
    page.meta["search"] = {"boost": FOUND_FIRST.get(place, 1)}
    own = page.file.generated_by is None
    text = links.on_site(markdown, links.DOCS + place, place) if own else markdown
    return links.titled(text, place, dict(_titles(config.nav or [])))


def _titles(nav: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Yield page and title of every entry of mkdocs.yml's nav."""
    for entry in nav:
        for title, held in entry.items():
            yield from [(held, title)] if isinstance(held, str) else _titles(held)


def _shown(path: str, text: str) -> str:
    """A file outside docs/ as a page."""
    if path.endswith(".md"):
        return links.on_site(text, path, links.page_of(path) or "")
    return f"# {path}\n\n````{Path(path).suffix[1:]}\n{text.rstrip()}\n````\n"
