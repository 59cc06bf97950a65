"""Results, tables, figures and pages, made once for all tests of the report, which only read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from cpt.report.drawing.make import make_figure
from cpt.report.page.make import make_page
from cpt.report.tables import make_table
from tests.helpers import fake_results, rough_results
from tests.helpers.browser import chromium


@pytest.fixture(scope="session")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The invented results."""
    folder = tmp_path_factory.mktemp("invented")
    fake_results.write_results(folder)
    return folder


@pytest.fixture(scope="session")
def with_tables(invented: Path) -> Path:
    """The invented results with every table."""
    for name in fake_results.TABLES:
        make_table(invented / "grid.json", invented / "runs.parquet", name, invented / "tables")
    return invented


@pytest.fixture(scope="session")
def with_figures(invented: Path) -> Path:
    """The invented results with every figure."""
    for name in fake_results.FIGURES:
        make_figure(invented / "grid.json", invented / "runs.parquet", name, invented / "figures")
    return invented


@pytest.fixture(scope="session")
def with_page(with_tables: Path, with_figures: Path) -> Path:
    """The invented results with tables, figures and their page."""
    make_page(with_tables)
    return with_tables


@pytest.fixture(scope="session")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of which no two numbers are alike."""
    folder = tmp_path_factory.mktemp("uneven")
    rough_results.write_results(folder)
    return folder


@pytest.fixture(scope="session")
def uneven_with_tables(uneven: Path) -> Path:
    """Results of which no two numbers are alike, with every table."""
    for name in fake_results.TABLES:
        make_table(uneven / "grid.json", uneven / "runs.parquet", name, uneven / "tables")
    return uneven


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])  # root has no sandbox
        yield opened
        opened.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A tab that fails the test for anything on the console, any error and any request beyond the file itself."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    page, problems, files = context.new_page(), [], []
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("request", lambda request: files.append(request.url))
    yield page
    outside = {url.partition("#")[0] for url in files if not url.startswith(("data:", "blob:"))}
    assert not problems
    assert len(outside) == 1
    assert next(iter(outside)).startswith("file://")
    context.close()
