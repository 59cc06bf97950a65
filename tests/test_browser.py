"""The page in a real browser: Debian's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import fake_results
import full_size
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cpt.report.figures import make_figure
from cpt.report.page import make_page
from cpt.report.tables import make_table
from tests.workflow import install

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parent.parent
LARGEST = 15e6


def chromium() -> str:
    """Path of Chromium, installed where that is possible; skips the test elsewhere."""
    names = ("chromium", "chromium-browser", "google-chrome")
    if not any(map(shutil.which, names)):
        install(names[:1], names[:1], "Chromium (Debian package chromium)")
    return next(filter(None, map(shutil.which, names)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])  # root has no sandbox
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    grid, runs = fake_results.write_results(folder)
    for number in range(1, 7):
        make_table(grid, runs, f"table{number}", folder / "tables")
    for number in range(1, 9):
        make_figure(grid, runs, f"figure{number}", folder / "figures")
    make_page(grid, runs, folder / "tables", folder / "figures", folder / "report/index.html")
    return folder / "report/index.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_size.write_full_page(PROJECT, tmp_path_factory.mktemp("large"))


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


def show(page: Page, file: Path, place: str = "") -> None:
    page.goto(f"file://{file}{place}")
    page.wait_for_selector("html[data-ready]", state="attached")


def column(page: Page, table: str, number: int) -> list[list[str]]:
    """Texts of a column of a table, per block."""
    blocks: list[list[str]] = []
    for row in page.locator(f"{table} tbody tr").all():
        if "dtrg-group" in (row.get_attribute("class") or ""):
            blocks.append([])
        else:
            blocks[-1].append(row.locator("td, th").nth(number).inner_text())
    return blocks


def numbers(texts: list[str]) -> list[float]:
    return [float(text.split()[0]) if text.strip() != "–" else -1.0 for text in texts]


# ---- the invented results ----------------------------------------------------------------------


def test_a_heading_sorts_within_each_ratio(tab: Page, small: Path) -> None:
    show(tab, small)
    assert column(tab, "#table2", 0)[0][0].startswith("Zero-shot")
    heading = tab.locator("#table2 thead th", has_text="Flowers")
    heading.click()
    found = [numbers(block) for block in column(tab, "#table2", 2)]
    assert [len(block) for block in found] == [5, 5, 5]
    assert found == [sorted(block) for block in found]
    heading.click()
    found = [numbers(block) for block in column(tab, "#table2", 2)]
    assert found == [sorted(block, reverse=True) for block in found]
    assert found[0] != found[2], "the ratios stay apart"


def test_a_table_sorts_by_keyboard(tab: Page, small: Path) -> None:
    show(tab, small)
    heading = tab.locator("#table2 thead th", has_text="Flowers")
    heading.locator("[role=button]").focus()
    tab.keyboard.press("Enter")
    found = [numbers(block) for block in column(tab, "#table2", 2)]
    assert found == [sorted(block) for block in found]


def test_a_field_filters_rows(tab: Page, small: Path) -> None:
    show(tab, small)
    tab.locator("#table2 input[type=search]").fill("npt")
    assert [[name.split()[0] for name in block] for block in column(tab, "#table2", 0)] == [["NPT"]] * 3
    tab.locator("#table2 input[type=search]").fill("no such method")
    expect(tab.locator("#table2 tbody")).to_contain_text("No matching records")


def test_a_number_opens_what_is_behind_it_by_keyboard(tab: Page, small: Path) -> None:
    show(tab, small)
    # IVLP on Flowers at 0.06
    block = tab.locator("#table2 tbody tr", has=tab.locator("th", has_text="IVLP")).nth(2)
    block.locator("a").nth(1).focus()
    tab.keyboard.press("Enter")
    dialog = tab.locator("#behind")
    expect(dialog.locator("h2")).to_have_text("IVLP · Flowers · base-to-new · τ = 0.06")
    said = dialog.inner_text()
    first = r"1\s+58\.00\s+61\.00\s+55\.50\s+41\.00\s+5\.00\s+3\.0"
    assert re.search(first, said), "H, base, new, tail, ECE and seconds of seed 1"
    assert "59.00 ± 1.00" in said
    assert re.search(r"learning_rate\s+0\.0025", said)
    assert "--forcerun results/invented/runs/base_to_new/flowers/r0.06/ivlp/s1/run.json" in said
    expect(dialog.locator(".chart .main-svg").first).to_be_visible()
    assert dialog.locator(".chart").count() == 2
    dialog.locator("select[aria-label=Measure]").select_option("etf_distance")
    expect(dialog.locator(".chart").first).to_contain_text("etf distance")
    expect(dialog.locator("table.dataTable")).to_contain_text("red tulip")
    tab.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert "#" not in tab.url


def test_an_average_opens_its_datasets(tab: Page, small: Path) -> None:
    show(tab, small)
    tab.locator("#table2 td.average a").first.click()
    dialog = tab.locator("#behind")
    expect(dialog.locator("h2")).to_contain_text("mean over 3 datasets")
    dialog.locator("a", has_text="World").click()
    expect(dialog.locator("h2")).to_contain_text("World")


def test_a_link_to_a_number_opens_it(tab: Page, small: Path) -> None:
    show(tab, small, "#open=table2/0")
    expect(tab.locator("#behind")).to_be_visible()


def test_a_missing_number_opens_and_has_no_numbers(tab: Page, small: Path) -> None:
    show(tab, small)
    tab.locator("#table2 tbody tr", has=tab.locator("th", has_text="NPT")).nth(2).locator("a").nth(2).click()
    expect(tab.locator("#behind h2")).to_contain_text("NPT")
    assert "metrics.parquet" in tab.locator("#behind pre").inner_text()


def test_names_are_text_and_no_markup(tab: Page, small: Path) -> None:
    show(tab, small)
    tab.locator("#table2 tbody tr", has=tab.locator("th", has_text="IVLP")).first.locator("a").nth(2).click()
    dialog = tab.locator("#behind")
    expect(dialog.locator("h2")).to_contain_text("<script>alert(1)</script>")
    dialog.locator("input[type=search]").fill("onerror")
    expect(dialog.locator("table.dataTable tbody")).to_contain_text(fake_results.WICKED)
    assert dialog.locator("img").count() == 0


def test_theme_switches_and_is_remembered(tab: Page, small: Path) -> None:
    show(tab, small)
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(background)
    tab.locator("#theme").click()
    dark = tab.evaluate(background)
    assert dark != light
    tab.reload()
    tab.wait_for_selector("html[data-ready]", state="attached")
    assert tab.evaluate(background) == dark
    assert tab.locator("#theme").inner_text() == "Light"


def test_a_figure_enlarges(tab: Page, small: Path) -> None:
    show(tab, small)
    tab.locator("#figure4 .zooms").focus()
    tab.keyboard.press("Enter")
    image = tab.locator("#zoom img")
    expect(image).to_be_visible()
    before = image.bounding_box()["width"]
    assert before > tab.locator("#figure4 img").bounding_box()["width"]
    tab.keyboard.press("+")
    assert image.bounding_box()["width"] > before
    tab.keyboard.press("Escape")
    expect(tab.locator("#zoom")).to_be_hidden()


def test_a_narrow_screen_does_not_scroll_sideways(tab: Page, small: Path) -> None:
    tab.set_viewport_size({"width": 400, "height": 800})
    show(tab, small)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    tab.locator("#table2 td a").first.click()
    expect(tab.locator("#behind")).to_be_visible()
    assert tab.locator("#behind").bounding_box()["width"] <= 400


def test_in_print_only_results_are_left(tab: Page, small: Path) -> None:
    show(tab, small)
    tab.emulate_media(media="print")
    for gone in (".bar", "#numbers", "#table2 input[type=search]", "#table2 .links"):
        expect(tab.locator(gone).first).to_be_hidden()
    expect(tab.locator("#table2 table")).to_be_visible()
    assert tab.pdf().startswith(b"%PDF")


def test_without_javascript_everything_is_still_there(browser: Browser, small: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{small}")
    assert page.locator("#table2 tbody tr.block").count() == 3
    expect(page.locator("#figure1 img")).to_be_visible()
    expect(page.locator("noscript p")).to_be_visible()
    context.close()


def test_all_numbers_filter_by_column_and_open(tab: Page, small: Path) -> None:
    show(tab, small)
    section = tab.locator("#numbers")
    section.locator("input[type=search]").first.fill("etf_weight = 0.5")
    rows = section.locator("#all-numbers tbody tr")
    expect(rows).to_have_count(1)
    rows.first.locator("a").click()
    expect(tab.locator("#behind h2")).to_contain_text("etf_weight = 0.5")


# ---- the paper's size --------------------------------------------------------------------------


def test_long_tables_have_pages_and_print_whole(tab: Page, large: Path) -> None:
    show(tab, large)
    rows = tab.locator("#ledger tbody tr")
    expect(rows).to_have_count(25)
    tab.locator("#ledger .dt-paging-button.next").click()
    expect(tab.locator("#ledger .dt-info")).to_contain_text("Showing 26 to 50 of")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert rows.count() > 500
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(rows).to_have_count(25)
    tab.locator("#ledger input[type=search]").fill("CoPrompt EuroSAT table3")
    assert {row.split()[0] for row in rows.all_inner_texts()} == {"table3"}
    tab.locator("#audit-proportions summary").click()
    expect(tab.locator("#audit-proportions tbody tr")).to_have_count(25)


def test_the_paper_s_grid_opens_sorts_filters_and_tells(tab: Page, large: Path, record_property) -> None:
    assert large.stat().st_size < LARGEST
    started = time.monotonic()
    show(tab, large)
    record_property("seconds to open", round(time.monotonic() - started, 2))
    tab.locator("#table2 thead th", has_text="EuroSAT").click()
    found = [numbers(block) for block in column(tab, "#table2", 10)]
    assert [len(block) for block in found] == [13, 13, 13]
    assert found == [sorted(block) for block in found]
    tab.locator("#numbers input[type=search]").first.fill("CoCoOp ImageNet-R 0.25")
    rows = tab.locator("#all-numbers tbody tr")
    expect(rows).to_have_count(1)
    rows.first.locator("a").click()
    dialog = tab.locator("#behind")
    expect(dialog.locator("h2")).to_have_text("CoCoOp · ImageNet-R · domain-generalization · τ = 0.25")
    expect(dialog).to_contain_text("of 200 entries")
    expect(dialog.locator(".chart .main-svg").first).to_be_visible()
    assert "--configfile" not in dialog.locator("pre").inner_text(), "an invented grid has no record"
