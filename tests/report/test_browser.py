"""The page in a real browser: Debian's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from cpt.files.stage_files import write_text
from cpt.report.page.make import make_page
from tests.helpers import fake_results, full_size, rough_results
from tests.helpers.fake_results import changed

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parents[2]
LARGEST = 15e6


expect.set_options(timeout=60_000)  # a busy machine draws late


@pytest.fixture(scope="module")
def small(with_page: Path) -> Path:
    return with_page / "report/index.html"


LEDGER = """<table class="results ledger"><thead><tr><th>row</th><th>ours</th></tr></thead><tbody>
<tr><td>a</td><td>9.50</td></tr><tr><td>b</td><td>–</td></tr><tr><td>c</td><td>10.00</td></tr>
<tr><td>d</td><td>-2.00</td></tr></tbody></table>"""


@pytest.fixture(scope="module")
def rough(uneven_with_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables 2 and 3 of results of which no two numbers are alike, and a small ledger."""
    exhibits = json.loads((uneven_with_tables / "grid.json").read_text())["exhibits"]
    two = {name: exhibits[name] for name in ("table2", "table3")}
    folder = changed(uneven_with_tables, tmp_path_factory.mktemp("rough") / "two", exhibits=two, printed=True)
    write_text(folder / "report/ledger.html", LEDGER)
    make_page(folder)
    return folder / "report/index.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_size.write_full_page(PROJECT, tmp_path_factory.mktemp("large"))


def show(page: Page, file: Path, place: str = "") -> None:
    page.goto(f"file://{file}{place}")
    page.wait_for_selector("html[data-ready]", state="attached")


def with_families(results: Path, folder: Path) -> Path:
    """Page of Table 2 with its rows in two families."""
    exhibit = json.loads((results / "grid.json").read_text())["exhibits"]["table2"]
    rows = [row | {"family": "prompts" if i else "frozen"} for i, row in enumerate(exhibit["rows"])]
    made = changed(results, folder, exhibits={"table2": exhibit | {"families": True, "rows": rows}})
    make_page(made)
    return made / "report/index.html"


def column(page: Page, table: str, number: int) -> list[list[str]]:
    """Texts of a column of a table, per block."""
    blocks: list[list[str]] = []
    for row in page.locator(f"{table} tbody tr").all():
        if "dtrg-group" in (row.get_attribute("class") or ""):
            blocks.append([])
        else:
            blocks[-1].append(row.locator("td, th").nth(number).inner_text())
    return blocks


def numbers(texts: list[str]) -> list[float | None]:
    return [float(text.split()[0]) if text.strip() != "–" else None for text in texts]


def ordered(values: list[float | None], falling: bool = False) -> list[float | None]:
    """The values in order, gaps behind them whatever the order."""
    known = sorted((value for value in values if value is not None), reverse=falling)
    return known + [None] * (len(values) - len(known))


# ---- the invented results ----------------------------------------------------------------------


def test_a_heading_sorts_within_each_ratio(tab: Page, small: Path) -> None:
    show(tab, small)
    assert column(tab, "#table2", 0)[0][0].startswith("Zero-shot")
    heading = tab.locator("#table2 thead th", has_text="Flowers")
    heading.click()
    found = [numbers(block) for block in column(tab, "#table2", 2)]
    assert [len(block) for block in found] == [5, 5, 5]
    assert found == [sorted(block, reverse=True) for block in found], "the best first"
    assert found[0] != found[2], "the ratios stay apart"
    heading.click()
    found = [numbers(block) for block in column(tab, "#table2", 2)]
    assert found == [sorted(block) for block in found]
    heading.click()
    assert column(tab, "#table2", 0)[0][0].startswith("Zero-shot"), "as it was"
    errors = tab.locator("#table6 thead th", has_text="ECE base ↓")
    errors.click()
    found = [numbers(block) for block in column(tab, "#table6", 3)]
    assert found == [ordered(block) for block in found], "a lower error is better"


def test_families_stand_apart_until_a_reader_sorts(tab: Page, uneven_with_tables: Path, tmp_path: Path) -> None:
    show(tab, with_families(uneven_with_tables, tmp_path / "families"))
    groups = tab.locator("#table2 tr.dtrg-group")
    assert [text.strip() for text in groups.all_inner_texts()[1:4:2]] == ["Frozen CLIP", "τ = 0.25"]
    expect(groups).to_have_count(9)
    heading = tab.locator("#table2 thead th", has_text="Flowers")
    heading.click()
    expect(groups).to_have_count(3)
    assert [len(block) for block in column(tab, "#table2", 2)] == [5, 5, 5]
    heading.click()
    heading.click()
    expect(groups).to_have_count(9)


def is_sorted(heading: Locator, falling: bool = False) -> None:
    """Wait until the table is: it is drawn anew some time after the click."""
    expect(heading).to_have_class(re.compile("dt-ordering-desc" if falling else "dt-ordering-asc"))


def test_gaps_sort_last_in_both_orders(tab: Page, rough: Path) -> None:
    """In a table, in the table of all numbers, and in the ledger, whose gaps are text."""
    show(tab, rough)
    heading = tab.locator("#table2 thead th", has_text="Avg")
    for falling in (True, False):
        heading.click()
        found = [numbers(block) for block in column(tab, "#table2", 4)]
        assert found == [ordered(block, falling) for block in found]
        assert found[2][-1] is None
    tab.locator("#numbers .dt-length select").select_option("100")
    heading = tab.locator("#numbers .dt-scroll-head th", has_text="Tail")
    for falling in (True, False):
        heading.click()
        is_sorted(heading, falling)
        found = numbers(tab.locator("#all-numbers tbody td:nth-child(15)").all_inner_texts())
        assert found == ordered(found, falling)
        assert None in found
    heading = tab.locator("#ledger thead th", has_text="ours")
    for expected in (["-2.00", "9.50", "10.00", "–"], ["10.00", "9.50", "-2.00", "–"]):
        heading.click()
        expect(tab.locator("#ledger tbody td:nth-child(2)")).to_have_text(expected)


def test_all_numbers_sort_by_keyboard(tab: Page, rough: Path) -> None:
    show(tab, rough)
    tab.locator("#numbers .dt-length select").select_option("100")
    heading = tab.locator("#numbers .dt-scroll-head th", has_text="Base")
    heading.locator("[role=button]").focus()
    tab.keyboard.press("Enter")
    is_sorted(heading, falling=True)
    found = numbers(tab.locator("#all-numbers tbody td:nth-child(10)").all_inner_texts())
    assert found == ordered(found, falling=True)
    assert found[0] != found[10]
    reached = tab.evaluate(
        """[...document.querySelectorAll("#numbers .dt-scroll-head th")].map(
            (heading) => [...heading.querySelectorAll("[role=button]")].map((button) => button.tabIndex))"""
    )
    assert reached == [[0]] * 18


@pytest.mark.parametrize(
    ("row", "dataset", "ratio"), [rough_results.TWO_SEEDS, ("ivlp", "flowers", 0.25), ("zeroshot", "world", 1.0)]
)
def test_a_number_is_the_same_in_every_view(tab: Page, rough: Path, row: str, dataset: str, ratio: float) -> None:
    """Mean and sample deviation in the table, among all numbers, and behind it, computed with pandas."""
    folder = rough.parent.parent
    exhibit = json.loads((folder / "grid.json").read_text())["exhibits"]["table2"]
    wanted = {"row": row, "dataset": dataset, "ratio": ratio}
    place = next(i for i, cell in enumerate(exhibit["cells"]) if cell | wanted == cell)
    of = {name: rough_results.seeds(folder, exhibit["cells"][place], name) for name in ("H", "base", "new")}
    mean, count = f"{of['H'].mean():.2f}", len(of["H"])
    std = f"{of['H'].std(ddof=1):.2f}" if count > 1 else None
    show(tab, rough)
    link = tab.locator(f"#table2 a[href='#open=table2/{place}']")
    assert link.inner_text() == mean
    assert link.locator("xpath=..").inner_text().split() == [mean, *([f"±{std}"] if std else [])]
    link.click()
    dialog = tab.locator("#behind")
    dialog.locator("table.results").first.locator("tr").nth(count).wait_for()  # filled in after the click
    seeds = [row.split("\t") for row in dialog.locator("table.results").first.locator("tr").all_inner_texts()]
    assert [line[0] for line in seeds[1 : count + 1]] == [str(seed) for seed in of["H"].index]
    for name, values in of.items():
        shown = [line[seeds[0].index(name)] for line in seeds[1:]]
        last = [f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"] if count > 1 else []
        assert shown == [f"{value:.2f}" for value in values] + last
    if row != "zeroshot":
        names = dialog.locator(".chart").first.locator(".legendtext")
        expect(names).to_have_text([f"seed {seed}" for seed in of["H"].index])
    tab.keyboard.press("Escape")
    tab.locator("#numbers .dt-length select").select_option("100")
    chosen = data_of(tab)["opens"]["table2"][place]
    line = tab.locator("#all-numbers tbody tr", has=tab.locator(f"a[href='#open=*/{chosen}']")).locator("td")
    assert line.all_inner_texts()[6:9] == [mean, std or "–", str(count)]
    assert line.all_inner_texts()[9:11] == [f"{of[name].mean():.2f}" for name in ("base", "new")]
    costs = pd.read_parquet(folder / "costs.parquet").set_index("run").loc[exhibit["cells"][place]["runs"]]
    spent = [f"{costs['seconds'].mean():.1f}", f"{costs['peak_memory_mb'].mean():.0f}"]
    assert line.all_inner_texts()[16:] == spent


def test_charts_and_classes_are_of_the_seeds_behind_the_number(tab: Page, rough: Path) -> None:
    """Curves, calibration and classes of a cell with two of three seeds, computed from the files with pandas."""
    folder = rough.parent.parent
    exhibit = json.loads((folder / "grid.json").read_text())["exhibits"]["table2"]
    wanted = dict(zip(("row", "dataset", "ratio"), rough_results.TWO_SEEDS, strict=True))
    place, cell = next((i, cell) for i, cell in enumerate(exhibit["cells"]) if cell | wanted == cell)
    counts, curves = (pd.read_parquet(folder / f"{name}.parquet") for name in ("counts", "curves"))
    counts = counts[counts["run"].isin(cell["runs"]) & (counts["target"] == cell["dataset"])]
    counts["weighted"] = counts["confidence"] * counts["images"]
    summed = counts.groupby(["subset", "by", "index"])[["images", "correct", "weighted"]].sum()
    show(tab, rough, f"#open=table2/{place}")
    expect(tab.locator("#behind .chart .main-svg").nth(3)).to_be_attached()  # two a chart
    over_epochs, calibration = tab.evaluate(
        "[...document.querySelectorAll('#behind .chart')].map((c) => c.data.map(({x, y, name}) => ({x, y, name})))"
    )
    for trace, run in zip(over_epochs, cell["runs"], strict=True):
        loss = curves[(curves["run"] == run) & (curves["measure"] == "loss")].sort_values("epoch")
        assert trace["x"] == loss["epoch"].tolist()
        assert trace["y"] == pytest.approx(loss["value"].tolist(), rel=1e-3)
    for trace, half in zip(calibration, ("base", "new"), strict=False):
        bins = summed.loc[half, "confidence"]
        assert trace["name"] == half
        assert trace["x"] == pytest.approx((bins["weighted"] / bins["images"]).tolist(), abs=1e-3)
        assert trace["y"] == pytest.approx((bins["correct"] / bins["images"]).tolist(), abs=1e-3)
    assert (calibration[2]["x"], calibration[2]["y"]) == ([0, 1], [0, 1])
    tab.locator("#behind .dt-length select").select_option("25")
    shown = [row.split("\t") for row in tab.locator("#behind table.dataTable tbody tr").all_inner_texts()]
    expected = {}
    names = fake_results.CLASSES
    for half, first in (("base", 0), ("new", len(names) // 2)):
        for label, right in summed.loc[half, "class"].iterrows():
            expected[names[first + label], half] = 100 * right["correct"] / right["images"]
    assert {(line[0], line[1]): float(line[5]) for line in shown} == pytest.approx(expected, abs=0.051)
    accuracies = [float(line[5]) for line in shown]
    assert accuracies == sorted(accuracies), "the worst first"


def test_an_average_tells_the_numbers_it_is_the_mean_of(tab: Page, rough: Path) -> None:
    folder = rough.parent.parent
    exhibit = json.loads((folder / "grid.json").read_text())["exhibits"]["table2"]
    show(tab, rough)
    link = tab.locator("#table2 tbody tr", has=tab.locator("th", has_text="IVLP")).first.locator("td.average a")
    cells = [exhibit["cells"][int(i)] for i in link.get_attribute("href").rpartition("/")[2].split(",")]
    link.click()
    told = [row.split("\t")[1:] for row in tab.locator("#behind tbody tr").all_inner_texts()]
    expected = []
    for cell in cells:
        of = [rough_results.seeds(folder, cell, name) for name in ("H", "base", "new")]
        expected.append([f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in of] + ["3"])
    means = [rough_results.over_datasets(folder, cells, name) for name in ("H", "base", "new")]
    expected.append([f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in means] + ["3"])
    assert told == expected


def data_of(tab: Page) -> dict:
    packed = tab.locator("#packed-data").text_content()
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_a_table_sorts_by_keyboard(tab: Page, small: Path) -> None:
    show(tab, small)
    heading = tab.locator("#table2 thead th", has_text="Flowers")
    heading.locator("[role=button]").focus()
    tab.keyboard.press("Enter")
    found = [numbers(block) for block in column(tab, "#table2", 2)]
    assert found == [sorted(block, reverse=True) for block in found]


def test_a_field_filters_rows(tab: Page, small: Path) -> None:
    show(tab, small)
    tab.locator("#table2 input[type=search]").fill("npt")
    assert [[name.split()[0] for name in block] for block in column(tab, "#table2", 0)] == [["NPT"]] * 3
    tab.locator("#table2 input[type=search]").fill("no such method")
    expect(tab.locator("#table2 tbody")).to_contain_text("No matching records")
    assert tab.locator("#table5 input[type=search]").count() == 0, "two rows need none"


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
    for gone in (".bar", "#numbers", "#table2 input[type=search]", "#table2 .links", "#figure4 .explored"):
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


@pytest.mark.parametrize(("width", "wide"), [(1400, True), (1024, False), (400, False)])
def test_contents_lead_to_every_exhibit_at_any_width(tab: Page, small: Path, width: int, wide: bool) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    show(tab, small)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    link = tab.locator(".contents a[href='#figure4']")
    expect(link).to_contain_text("An invented violin")
    if not wide:
        expect(link).to_be_hidden()
        tab.locator(".contents summary").click()
    link.click()
    assert tab.evaluate("document.querySelector('.contents').open") == wide
    place = tab.locator("#figure4 h3").bounding_box()
    assert 0 <= place["y"] < 400
    tab.locator(".tools a").click()
    assert tab.evaluate("scrollY") == 0


CUT_OFF = """[...document.querySelectorAll("main table.results")].filter((table) => {
    if (table.closest("details")) return false;
    const right = table.getBoundingClientRect().right;
    return right > document.querySelector("main").getBoundingClientRect().right + 1;
}).map((table) => table.closest("[id]").id)"""


def test_no_column_is_cut_off_on_a_usual_screen(tab: Page, small: Path) -> None:
    show(tab, small)
    assert tab.evaluate(CUT_OFF) == []


def test_the_first_stop_skips_to_the_results(tab: Page, small: Path) -> None:
    show(tab, small)
    tab.keyboard.press("Tab")
    expect(tab.locator(".skip")).to_be_focused()
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "results"


def test_files_are_saved_from_the_page_alone(tab: Page, small: Path, tmp_path: Path) -> None:
    alone = tmp_path / "mailed.html"
    alone.write_bytes(small.read_bytes())
    show(tab, alone)
    for name, place in (("table2.csv", "tables"), ("table1.tex", "tables"), ("figure3.svg", "figures")):
        with tab.expect_download() as started:
            tab.locator(f"a[download='{name}']").click()
        assert started.value.suggested_filename == name
        assert Path(started.value.path()).read_bytes() == (small.parents[1] / place / name).read_bytes()


def test_all_numbers_are_saved_in_full_precision(tab: Page, rough: Path) -> None:
    show(tab, rough)
    tab.locator("#numbers input[type=search]").first.fill("ivlp flowers 0.25")
    with tab.expect_download() as started:
        tab.locator("#numbers .buttons-csv").click()
    saved = pd.read_csv(started.value.path())
    folder = rough.parent.parent
    exhibit = json.loads((folder / "grid.json").read_text())["exhibits"]["table2"]
    wanted = {"row": "ivlp", "dataset": "flowers", "ratio": 0.25}
    cell = next(cell for cell in exhibit["cells"] if cell | wanted == cell)
    line = saved[saved["Task"] == "base-to-new"].iloc[0]
    assert (line["Shown in"], line["Method"]) == ("Table 2", "IVLP")
    for title, metric in (("H or accuracy", "H"), ("Base", "base"), ("New", "new"), ("Tail", "tail")):
        assert line[title] == pytest.approx(rough_results.seeds(folder, cell, metric).mean(), rel=1e-14)


def test_a_dialog_tells_the_number_that_was_clicked_in_full_precision(tab: Page, small: Path) -> None:
    """Also a measure, of a table of measures: the average there is the average here."""
    show(tab, small)
    cell = tab.locator("#table6 tbody tr", has=tab.locator("th", has_text="IVLP")).first.locator("td").nth(2)
    cell.locator("a").click()
    expect(tab.locator("#behind h2")).to_contain_text("IVLP")
    table = tab.locator("#behind table.results").first
    titles = table.locator("thead th").all_inner_texts()
    own = tab.locator("#table6 thead tr").last.locator("th").nth(3).inner_text().removesuffix(" ↓")
    last = table.locator("tbody tr").last.locator("th, td").nth(titles.index(own)).locator("span")
    assert last.inner_text().split(" ± ")[0] == cell.locator("a").inner_text()
    assert float(last.get_attribute("title").split(" ± ")[0]) == float(cell.get_attribute("data-order"))


def test_a_figure_s_axes_are_chosen_and_a_point_opens(tab: Page, small: Path) -> None:
    show(tab, small)
    place = tab.locator("#figure8 .explored")
    place.scroll_into_view_if_needed()
    expect(place.locator(".main-svg").first).to_be_visible()
    drawn = "document.querySelector('#figure8 .js-plotly-plot').data.map(({name, x, y}) => ({name, x, y}))"
    assert [one["name"] for one in tab.evaluate(drawn)] == ["Zero-shot", "CPT (as printed)", "CPT"]
    place.get_by_label("Vertical axis").select_option(label="tail")
    expect(place.locator(".ytitle")).to_have_text("tail")
    place.get_by_label("Horizontal axis").select_option(label="H")
    expect(place.locator(".xtitle")).to_have_text("H")
    table = json.loads((small.parents[1] / "grid.json").read_text())["exhibits"]["figure8"]["cells"]
    cells = [cell for cell in table if cell["row"] == "cpt"]
    tails = [rough_results.seeds(small.parents[1], cell, "tail").mean() for cell in cells]
    assert tab.evaluate(drawn)[-1]["y"] == [pytest.approx(sum(tails) / len(tails))]
    tab.evaluate(
        "(() => { const p = document.querySelector('#figure8 .js-plotly-plot');"
        " p.emit('plotly_click', { points: [{ customdata: '0,1' }] }); })()"
    )
    expect(tab.locator("#behind h2")).to_contain_text("mean over 2 datasets")


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
    assert tab.evaluate(CUT_OFF) == [], "twelve columns and the ledger fit"
    found = [numbers(block) for block in column(tab, "#table2", 10)]
    assert [len(block) for block in found] == [14, 14, 14]
    assert found == [sorted(block, reverse=True) for block in found]
    tab.locator("#numbers input[type=search]").first.fill("CoCoOp ImageNet-R 0.25")
    rows = tab.locator("#all-numbers tbody tr")
    expect(rows).to_have_count(1)
    rows.first.locator("a").click()
    dialog = tab.locator("#behind")
    expect(dialog.locator("h2")).to_have_text("CoCoOp · ImageNet-R · domain-generalization · τ = 0.25")
    expect(dialog).to_contain_text("of 200 entries")
    expect(dialog.locator(".chart .main-svg").first).to_be_visible()
    assert "--configfile" not in dialog.locator("pre").inner_text(), "an invented grid has no record"
