"""Links of the documents. In the repository they lead to files; on the site every such file has a page."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = "docs/"
SOURCE = "source/"
PAGES = {
    "README.md": "overview.md",
    "CHANGELOG.md": "changelog.md",
    "CITATION.cff": "cite.md",
    "cpt/api": "reference/python.md",
    "cpt/cli": "reference/commands.md",
    "envs/README.md": "environments.md",
    "workflow/schemas/config.schema.json": "reference/configuration.md",
}
"""Files and folders outside docs/ that have a page of their own; other files are shown as they are, below SOURCE."""
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")
CODE = re.compile(r"^(?:```.*?^```|(?: {4}[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
"""Blocks of code, in which nothing is a link."""
NAMED = re.compile(r"\[(?:[\w/]+\.(?:md|cff)|README)\](?=\((?P<page>[^)#:]+\.md)[#)])")
"""The beginning of a link that has a file's name for words."""
MARK = re.compile(r"<!-- (?:=\w+|/) -->")
"""Around what docs/write_numbers.py writes."""


def page_of(path: str) -> str | None:
    """Return the page of a file or folder of the repository; None where it has none."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    return f"{SOURCE}{path}.md" if (ROOT / path).is_file() else None


def found(text: str, path: str) -> set[str]:
    """Return the files and folders of the repository that a document links to; ``path`` is the document's own."""
    return {_linked(path, link["path"]) for link in LINK.finditer(CODE.sub("", text))}


def on_site(text: str, path: str, page: str) -> str:
    """Return a document with links between pages instead of files, and without the marks of written numbers.

    Args:
        text: Markdown as it stands in the repository.
        path: its file.
        page: its page.
    """

    def moved(link: re.Match[str]) -> str:
        target = page_of(_linked(path, link["path"]))
        return os.path.relpath(target, os.path.dirname(page) or ".") + (link["anchor"] or "") if target else link[0]

    pieces, end = [], 0
    for block in CODE.finditer(text):
        pieces += [LINK.sub(moved, text[end : block.start()]), block[0]]
        end = block.end()
    return MARK.sub("", "".join([*pieces, LINK.sub(moved, text[end:])]))


def titled(text: str, page: str, titles: Mapping[str, str]) -> str:
    """Return a page whose links have titles of pages for words, where they had names of files.

    Args:
        text: Markdown of the page.
        page: the page.
        titles: page -> title.
    """

    def words(link: re.Match[str]) -> str:
        title = titles.get(os.path.normpath(os.path.join(os.path.dirname(page), link["page"])))
        return f"[{title}]" if title else link[0]

    return NAMED.sub(words, text)


def _linked(path: str, link: str) -> str:
    """Path of a link's target in the repository."""
    return os.path.normpath(os.path.join(os.path.dirname(path), link))
