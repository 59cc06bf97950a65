"""The page: complete, self-contained, escaped, and with a headline that the data support."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import fake_results
import pytest

from cpt.errors import CptError
from cpt.report.figures import make_figure
from cpt.report.page import best_method, headline, make_page, natural_order
from cpt.report.results import Summary, read_results
from cpt.report.tables import make_table

TABLES = [f"table{number}" for number in range(1, 6)]
FIGURES = [f"figure{number}" for number in range(1, 6)]


class Elements(html.parser.HTMLParser):
    """The elements of a page with their attributes, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the invented results, and what it is made from."""
    folder = tmp_path_factory.mktemp("results")
    grid, runs = fake_results.write_results(folder)
    for name in TABLES:
        make_table(grid, runs, name, folder / "tables")
    for name in FIGURES:
        make_figure(grid, runs, name, folder / "figures")
    make_page(
        grid, runs, folder / "costs.parquet", folder / "tables", folder / "figures", folder / "report" / "index.html"
    )
    return folder


@pytest.fixture(scope="module")
def page(made: Path) -> Elements:
    return Elements((made / "report" / "index.html").read_text())


def test_every_table_and_figure_is_there(page: Elements) -> None:
    ids = [attributes.get("id") for _, attributes in page.found]
    assert [name for name in ids if name in TABLES + FIGURES] == TABLES + FIGURES
    assert sum(tag == "table" and a.get("class") == "results" for tag, a in page.found) == 5
    pictures = [a for tag, a in page.found if tag == "img"]
    assert len(pictures) == 5
    assert all(a["src"].startswith("data:image/svg+xml;base64,") for a in pictures)
    assert pictures[0]["alt"] == "What figure1 shows: τ → 0 & a_b."


def test_page_asks_nothing_of_the_network(made: Path, page: Elements) -> None:
    text = (made / "report" / "index.html").read_text()
    for _, attributes in page.found:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert not re.match(r"\s*(https?:)?//", attributes.get(name) or "")
    assert not re.search(r"@import|url\(", text)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.found}


def test_what_each_method_was_given(page: Elements) -> None:
    text = " ".join(page.text.split())
    assert "CPT World, τ = 1 12 16 SGD 0.0025 1,664 none 15 16 0 4.0 none" in text, "median of the seeds' seconds"
    assert "NPT reconstruction World, τ = 1" in text
    assert (
        "IVLP World, τ = 1 12 16 SGD 0.0025 1,664 none 15 16 0 4.0 50 descriptions per class from the file x.json"
        in text
    )
    assert "Zero-shot World, τ = 1 – – – 0 – – – – – the dataset's template" in text
    assert "batch_size 16 this experiment images per step a config" in text
    assert "depth_text 3 published prompted blocks another config" in text, "the default of the protocol"
    assert "tetf_reading pairs ours how Eq. 9 is read ours" in text
    assert "snapshots" not in text


def test_links_lead_to_the_files_beside_the_page(made: Path, page: Elements) -> None:
    links = [a["href"] for tag, a in page.found if tag == "a"]
    files = [link for link in links if not link.startswith("#")]
    assert "../tables/table1.csv" in files
    assert len(files) == 5 * 3 + 5 * 4
    assert all((made / "report" / link).is_file() for link in files)
    ids = {a.get("id") for _, a in page.found}
    assert {link[1:] for link in links if link.startswith("#")} <= ids


def test_text_is_escaped(made: Path, page: Elements) -> None:
    assert "<script>alert(1)</script> (for A & B_C)" in page.text
    assert "An invented table of 100% <b>markup</b>" in page.text


def test_first_screen_says_what_was_run_and_what_came_out(page: Elements) -> None:
    text = " ".join(page.text.split())
    assert "The numbers printed in the paper do not apply to this experiment" in text
    assert "Backbone tiny_clip" in text
    assert "Imbalance ratios τ 1, 0.25, 0.06" in text
    assert "Zero-shot, IVLP, NPT (reconstruction), CPT (as printed), CPT" in text
    assert "Seeds 1, 2, 3" in text
    assert re.search(r"Runs (\d+) of (\d+) finished", text)
    assert "τ = 0.06: CPT has the highest average H, 57.00 ± 1.00, 2.00 points above IVLP (55.00 ± 1.00)." in text
    assert "τ = 1: CPT has the highest average H, 61.00 ± 1.00, 1.00 points above NPT (reconstruction)" in text


def test_printed_experiment_has_no_warning(made: Path) -> None:
    grid = json.loads((made / "grid.json").read_text()) | {"printed": True}
    (made / "printed.json").write_text(json.dumps(grid))
    output = made / "elsewhere" / "deep" / "page.html"
    make_page(
        made / "printed.json", made / "runs.parquet", made / "costs.parquet", made / "tables", made / "figures", output
    )
    text = output.read_text()
    assert "do not apply" not in text
    assert 'href="../../tables/table1.csv"' in text


def test_same_inputs_give_the_same_bytes(made: Path) -> None:
    again = made / "report" / "again.html"
    make_page(
        made / "grid.json", made / "runs.parquet", made / "costs.parquet", made / "tables", made / "figures", again
    )
    assert again.read_bytes() == (made / "report" / "index.html").read_bytes()


def test_missing_table_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(CptError, match=r"table1\.html: not found"):
        make_page(
            made / "grid.json",
            made / "runs.parquet",
            made / "costs.parquet",
            tmp_path,
            made / "figures",
            tmp_path / "page.html",
        )


@pytest.mark.parametrize(
    ("averages", "said"),
    [
        ({"A": Summary(None, None, 0)}, "no method has finished on every dataset."),
        ({"A": Summary(50.0, None, 1)}, "A has the highest average H, 50.00; no other method has finished."),
        (
            {"A": Summary(50.0, 0.5, 3), "B": Summary(50.001, 0.5, 3)},
            "B and A are level with an average H of 50.00 ± 0.50.",
        ),
        (
            {"A": Summary(50.0, 0.5, 3), "B": Summary(50.25, None, 1), "C": Summary(None, None, 0)},
            "B has the highest average H, 50.25, 0.25 points above A (50.00 ± 0.50). "
            "This margin is smaller than the standard deviation over seeds.",
        ),
    ],
)
def test_headline_sentences(averages: dict[str, Summary], said: str) -> None:
    assert best_method(averages) == said


def test_experiment_without_a_base_to_new_table_has_no_headline(made: Path, tmp_path: Path) -> None:
    grid = json.loads((made / "grid.json").read_text())
    grid["exhibits"] = {"table5": grid["exhibits"]["table5"]}
    changed = tmp_path / "grid.json"
    changed.write_text(json.dumps(grid))
    assert headline(read_results(changed, made / "runs.parquet")) == []
    make_page(
        changed,
        made / "runs.parquet",
        made / "costs.parquet",
        made / "tables",
        made / "figures",
        tmp_path / "page.html",
    )
    text = " ".join(Elements((tmp_path / "page.html").read_text()).text.split())
    assert "so there is no headline" in text
    assert "Methods cpt, cptsum" in text


def test_exhibits_are_ordered_as_people_count() -> None:
    assert sorted(["table10", "table2", "figure1"], key=natural_order) == ["figure1", "table2", "table10"]
