"""The documents as a site, built as `make docs` builds it, and read as its readers do, without a server."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import expect, sync_playwright

from cpt.cli.app import VERBS
from docs.pages import links
from tests.helpers.browser import chromium
from tests.helpers.workflow import leave_out

ROOT = Path(__file__).parent.parent
CLICKS = 3
EMPTY = {"br", "hr", "img", "input", "link", "meta", "path", "source"}
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a browser fetches by itself."""
COUNTED = ("table", "tr", "li", "pre", "h2", "h3", "a", "strong", "em", "img")


class Reader(HTMLParser):
    """What a page holds.

    Attributes:
        ids: anchors.
        links: (address, words) of the links, those to a heading's own anchor left out.
        loaded: addresses that a browser fetches by itself.
        article: the text between the navigation and the foot.
        tags: how many of which elements the article has.
    """

    def __init__(self, text: str, *, only_article: bool = True) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, str]] = []
        self.loaded: list[str] = []
        self.article = ""
        self.tags: Counter[str] = Counter()
        self._open: list[str] = []
        self._inside = 0 if only_article else 1
        self._link: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, found: list[tuple[str, str | None]]) -> None:
        held = {name: value or "" for name, value in found}
        self._open += [] if tag in EMPTY else [tag]
        self.ids |= {held["id"]} if "id" in held else set()
        if LOADED.get(tag) in held and held.get("rel") not in ("prev", "next"):
            self.loaded.append(held[LOADED[tag]])
        if self._inside and tag not in EMPTY:
            self._inside += 1
        elif tag == "article":
            self._inside = 1
        if tag == "a" and "href" in held and "headerlink" not in held.get("class", ""):
            self._link = [held["href"], ""]
            self.tags["a"] += bool(self._inside)
        elif self._inside and tag != "a":
            self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert tag in EMPTY or self._open.pop() == tag, f"line {self.getpos()[0]}: <{tag}> ends another element"
        if tag == "a" and self._link:
            self.links.append((self._link[0], " ".join(self._link[1].split())))
            self._link = None
        if self._inside and tag not in EMPTY:
            self._inside -= 1

    def handle_data(self, data: str) -> None:
        if self._link:
            self._link[1] += data
        if self._inside:
            self.article += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning is an error of the build."""
    if not importlib.util.find_spec("mkdocs"):
        leave_out("needs envs/requirements-docs.txt: make docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr + done.stdout
    return folder


@pytest.fixture(scope="module")
def page(site: Path) -> Callable[[Path], Reader]:
    return functools.cache(lambda path: Reader(path.read_text(encoding="utf-8")))


def inside(page: Path, address: str) -> tuple[Path, str] | None:
    """The file and the anchor that an address on a page leads to; None if it leads out of the site."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return path, unquote(parts.fragment)


def pages(site: Path) -> Iterator[Path]:
    return (path for path in site.rglob("*.html") if path.name != "404.html")  # its links are those of a server


def slow(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.slow(pytest.mark.no_cover(test))


@slow
def test_every_page_is_reached_from_the_index(site: Path, page: Callable[[Path], Reader]) -> None:
    seen, left = set(), [site / "index.html"]
    while left:
        here = left.pop()
        seen.add(here)
        found = [target[0] for address, _ in page(here).links if (target := inside(here, address))]
        left += [path for path in found if path not in seen and path.suffix == ".html"]
    assert seen == set(pages(site))


@slow
def test_every_link_leads_to_a_place_that_exists(site: Path, page: Callable[[Path], Reader]) -> None:
    for here in pages(site):
        for address in [*(address for address, _ in page(here).links), *page(here).loaded]:
            if target := inside(here, address):
                path, anchor = target
                assert path.is_file(), f"{here}: {address}"
                assert not anchor or path.suffix != ".html" or anchor in page(path).ids, f"{here}: {address}"


@slow
def test_nothing_is_loaded_from_elsewhere(site: Path, page: Callable[[Path], Reader]) -> None:
    for here in pages(site):
        assert [url for url in page(here).loaded if inside(here, url) is None and not url.startswith("data:")] == []
        assert "mermaid" not in here.read_text(encoding="utf-8"), "diagrams are drawn by a script of another server"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(?!data:|#)[a-z]*:?//", sheet.read_text(encoding="utf-8")), sheet


@slow
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("dataset", r"config/datasets\.yaml.*layout: folders.*root:.*cpt data check"),
        ("τ|word", r"τ.*training images of the rarest class divided by those of the most frequent one"),
        ("run|file", r"run\.json.*prompts\.safetensors.*history\.parquet.*predictions\.parquet.*metrics\.parquet"),
        ("cite", r"@inproceedings\{cpt2026.*2605\.11939.*@software\{cpt_longtail"),
    ],
    ids=["how to add a dataset", "what τ is", "what a run's folder holds", "how to cite"],
)
def test_a_stranger_finds_it_in_three_clicks(
    site: Path, page: Callable[[Path], Reader], words: str, answer: str
) -> None:
    """By links whose words have to do with the question."""
    reached = {site / "index.html"}
    for _ in range(CLICKS):
        if any(re.search(answer, page(here).article, re.DOTALL) for here in reached):
            break
        reached |= {
            target[0]
            for here in reached
            for address, said in page(here).links
            if re.search(words, said, re.IGNORECASE) and (target := inside(here, address))
        }
    assert any(re.search(answer, page(here).article, re.DOTALL) for here in reached)


@slow
def test_the_index_alone_leads_to_the_answers(site: Path, page: Callable[[Path], Reader]) -> None:
    """Its rows name them in the reader's words."""
    article = page(site / "index.html").article
    assert all(words in article for words in ("a dataset", "τ", "of a run", "how to cite"))


DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])


@slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_is_the_same_on_github(site: Path, page: Callable[[Path], Reader], document: str) -> None:
    """As many lists, tables, links and the like as CommonMark, which GitHub shows, makes of it."""
    text = MarkdownIt("commonmark").enable("table").render((ROOT / document).read_text(encoding="utf-8"))
    github = Reader(text, only_article=False).tags
    here = page(site / Path(links.page_of(document) or "").with_suffix(".html")).tags
    assert {tag: here[tag] for tag in COUNTED} == {tag: github[tag] for tag in COUNTED}


@slow
def test_the_search_works_without_server_and_network(site: Path) -> None:
    """In a browser: what a search for a term lists first is where it is defined."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])  # root has no sandbox
        tab = browser.new_page()
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto((site / "index.html").as_uri())
        tab.locator("input.md-search__input").click()
        tab.keyboard.type("imbalance ratio")
        expect(tab.locator(".md-search-result__item h1").first).to_have_text("Words", timeout=60_000)
        browser.close()
    assert any(url.endswith("/search_index.js") for url in asked)
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data"}


@slow
def test_reference_has_every_field_command_and_function(site: Path, page: Callable[[Path], Reader]) -> None:
    schema = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text(encoding="utf-8"))
    configuration = (site / "reference/configuration.html").read_text(encoding="utf-8")
    for kind in (schema, *schema["$defs"].values()):
        for field in kind["properties"]:
            assert f"<td><code>{field}</code></td>" in configuration
    commands = page(site / "reference/commands.html").article
    for verbs in VERBS.values():
        for verb in verbs:
            assert f"$ cpt {verb.__name__.replace('_', '-')} " in commands
    assert "$ cpt data check " in commands
    assert {"cpt.api.fit.fit", "cpt.api.model.load", "cpt.results.frame.frame"} <= page(
        site / "reference/python.html"
    ).ids


def test_the_glossary_has_the_readme_s_words() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Words\n")[1].split("\n## ")[0]
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    for term in re.findall(r"^\| (\S.*?) \|", readme, re.MULTILINE):
        assert re.search(rf"^\| [^|]*{re.escape(term)}", glossary, re.MULTILINE), term
