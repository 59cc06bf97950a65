"""The page: complete, self-contained, escaped, and with a headline that the data support."""

from __future__ import annotations

import base64
import email.message
import gzip
import html.parser
import io
import json
import random
import re
from pathlib import Path

import pandas as pd
import pytest

from cpt.errors import CptError
from cpt.experiment.exhibits import table_suffixes
from cpt.files import integrity
from cpt.files.provenance import recorded
from cpt.files.stage_files import write_json
from cpt.report.page.first_screen import ranking, significant_differences
from cpt.report.page.make import command, make_page
from cpt.report.words import natural_order
from cpt.results.cells import Summary
from tests.helpers import fake_results, rough_results
from tests.helpers.fake_results import changed

TABLES, FIGURES = fake_results.TABLES, fake_results.FIGURES


class Elements(html.parser.HTMLParser):
    """The elements of a page with their attributes, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: dict[str | None, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.text += " "

    def handle_data(self, data: str) -> None:
        tag, attributes = self.found[-1] if self.found else ("", {})
        if tag == "script":
            name = attributes.get("id")
            self.scripts[name] = self.scripts.get(name, "") + data
        else:
            self.text += data


@pytest.fixture(scope="module")
def made(with_page: Path) -> Path:
    """The page of the invented results, and what it is made from."""
    return with_page


@pytest.fixture(scope="module")
def page(made: Path) -> Elements:
    return Elements((made / "report" / "index.html").read_text())


def test_every_table_and_figure_is_there(page: Elements) -> None:
    ids = [attributes.get("id") for _, attributes in page.found]
    assert [name for name in ids if name in TABLES + FIGURES] == TABLES + FIGURES
    described = [a["aria-describedby"] for tag, a in page.found if tag == "table" and "aria-describedby" in a]
    assert described == [f"{name}-notes" for name in TABLES]
    assert set(described) <= set(ids)
    pictures = [a for tag, a in page.found if tag == "img" and "src" in a]
    assert len(pictures) == len(FIGURES)
    assert all(a["src"].startswith("data:image/svg+xml;base64,") for a in pictures)
    assert pictures[0]["alt"].startswith("τ = 0.06. What figure1 shows: τ → 0 & a_b. Maps: the first seed")


def test_page_asks_nothing_of_the_network(made: Path, page: Elements) -> None:
    text = (made / "report" / "index.html").read_text()
    for tag, attributes in page.found:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            if (tag, name) != ("a", "href"):  # a link asks only when it is followed
                assert not re.match(r"\s*(https?:)?//", attributes.get(name) or "")
    assert not re.search(r"@import|url\(", text)
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in page.found}
    assert {a["type"] for tag, a in page.found if tag == "script"} == {"module", "text/plain"}


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


def test_the_page_alone_has_no_dead_link_and_the_small_files_inside(made: Path, page: Elements) -> None:
    links = [a for tag, a in page.found if tag == "a"]
    outside = [a["href"] for a in links if "href" in a and not a["href"].startswith("#")]
    assert outside[0] == "https://arxiv.org/abs/2605.11939"
    assert all(address.startswith("https://") for address in outside)
    ids = {a.get("id") for _, a in page.found}
    inside = {a["href"][1:] for a in links if a.get("href", "").startswith("#")}
    assert {link for link in inside if not link.startswith("open=")} <= ids
    saved = [a["download"] for a in links if "download" in a]
    assert len(saved) == len(TABLES) * (len(table_suffixes()) - 1) + len(FIGURES) * 2
    files = unpacked(page, "files")
    for name in set(saved) - {f"{figure}.svg" for figure in FIGURES}:
        folder = "tables" if name.startswith("table") else "figures"
        assert files[name] == (made / folder / name).read_text()


def test_contents_name_every_exhibit_and_headings_have_anchors(page: Elements) -> None:
    places = [a["href"][1:] for tag, a in page.found if tag == "a" and a.get("class") == "anchor"]
    assert [place for place in places if place in TABLES + FIGURES] == TABLES + FIGURES
    first = next(a for tag, a in page.found if tag == "a")
    assert (first["class"], first["href"]) == ("skip", "#results")
    text = " ".join(page.text.split())
    assert "Figures 1 An invented similarity of 100% <b>markup</b> 2 An invented method" in text


def unpacked(page: Elements, name: str) -> dict:
    """What a packed part of the page holds."""
    return json.loads(gzip.decompress(base64.b64decode(page.scripts[f"packed-{name}"])))


def behind(page: Elements) -> dict:
    """The data that the page's numbers open."""
    return unpacked(page, "data")


def test_every_number_leads_to_the_runs_that_made_it(made: Path, page: Elements) -> None:
    data, grid = behind(page), json.loads((made / "grid.json").read_text())
    links = [a["href"] for tag, a in page.found if tag == "a" and a.get("href", "").startswith("#open=table2/")]
    assert len(links) == 3 * 5 * 4, "ratios, rows, datasets and the average"
    for link in links:
        cells = [grid["exhibits"]["table2"]["cells"][int(i)] for i in link.rpartition("/")[2].split(",")]
        assert len(cells) in (1, 3)
        assert len({(cell["row"], cell["ratio"]) for cell in cells}) == 1
    for name, exhibit in grid["exhibits"].items():
        for cell, place in zip(exhibit["cells"], data["opens"][name], strict=True):
            told = data["cells"][place]
            assert [data["runs"][run][0] for run in told["runs"]] == cell["runs"]
            assert (told["target"], told["ratio"]) == (cell["dataset"], cell["ratio"])


def test_a_number_opens_seeds_configuration_curves_and_classes(page: Elements) -> None:
    data = behind(page)
    wanted = {"method": "CPT", "dataset": "Flowers", "ratio": 0.06, "setting": None}
    cells = [data["cells"][place] for place in data["opens"]["table2"]]
    cell = next(cell for cell in cells if cell | wanted == cell)
    accuracies = {"H": [60.0, 61.0, 62.0], "base": [63.0, 64.0, 65.0], "new": [57.5, 58.5, 59.5]}
    assert cell["numbers"] == accuracies | {
        "tail": [43.0, 44.0, 45.0], "ECE base": [5.0, 6.0, 7.0], "tail as head": [12.5] * 3,
        "effective rank": [3.25] * 3,
    }  # fmt: skip
    assert cell["means"]["new"] == [58.5, 1.0]
    assert [data["runs"][run][1:3] for run in cell["runs"]] == [[1, 3.0], [2, 4.0], [3, 8.0]]
    group = data["groups"][cell["group"]]
    assert group["configuration"]["learning_rate"] == 0.0025
    assert data["curves"][cell["runs"][1]]["loss"] == [2.2, 1.2, 0.8667, 0.7, 0.6, 0.5333]
    base = group["tested"]["flowers/base"]
    # 10 + k + seed of 50 over the seeds 1 to 3: (12 + k) / 50
    assert base["accuracy"] == [240, 260, 280, 300, 320, 340]
    assert (base["train"][:2], base["class_group"][-1]) == ([16, 15], "tail")
    assert base["bins"] == [[300, 0.5, 0.4], [600, 0.96, 0.95]]
    assert data["names"]["flowers/new"] == list(fake_results.CLASSES[6:])


@pytest.fixture(scope="module")
def rough(uneven_with_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the tables of results of which no two numbers are alike."""
    exhibits = json.loads((uneven_with_tables / "grid.json").read_text())["exhibits"]
    tables = {name: exhibits[name] for name in TABLES}
    folder = changed(uneven_with_tables, tmp_path_factory.mktemp("rough") / "tables", exhibits=tables)
    make_page(folder)
    return folder


@pytest.mark.no_cover
def test_what_a_number_opens_is_of_its_own_runs(rough: Path) -> None:
    """Seeds, means, deviations, curves, classes and calibration of every cell, computed from the files with pandas."""
    data = behind(Elements((rough / "report" / "index.html").read_text()))
    grid = json.loads((rough / "grid.json").read_text())
    counts, curves = (pd.read_parquet(rough / f"{name}.parquet") for name in ("counts", "curves"))
    counts["weighted"] = counts["images"] * counts["confidence"]
    of_target = dict(iter(counts.groupby("target")))
    drawn = {
        run: own.sort_values("epoch").groupby("measure")["value"].agg(list).to_dict()
        for run, own in curves.groupby("run")
    }
    metrics = {"H": "H", "accuracy": "accuracy", "base": "base", "new": "new", "tail": "tail", "ECE base": "ece_base"}
    metrics |= {"tail as head": "tail_as_head", "effective rank": "effective_rank"}
    sizes = set()
    for name, exhibit in grid["exhibits"].items():
        for cell, place in zip(exhibit["cells"], data["opens"][name], strict=True):
            told = data["cells"][place]
            own = {title: rough_results.seeds(rough, cell, metric) for title, metric in metrics.items()}
            own = {title: values for title, values in own.items() if len(values)}
            if told["judged"] == "H":
                own.pop("accuracy", None)
            else:
                own = {title: values for title, values in own.items() if title == "accuracy"}
            sizes.add(len(cell["runs"]))
            assert told["numbers"].keys() == told["means"].keys() == own.keys()
            for title, values in own.items():
                assert [v for v in told["numbers"][title] if v is not None] == list(values)
                mean, std = told["means"][title]
                assert mean == pytest.approx(values.mean(), rel=1e-14)
                assert (
                    std is None if len(values) == 1 else std == pytest.approx(values.std(ddof=1), rel=1e-9, abs=1e-12)
                )
            for run, number in zip(cell["runs"], told["runs"], strict=True):
                assert data["runs"][number][0] == run
                own_curves = drawn.get(run, {}).items()
                assert data["curves"][number] == {m: pytest.approx(values, rel=1e-3) for m, values in own_curves}
            tested = data["groups"][told["group"]]["tested"]
            mine = of_target[cell["dataset"]][of_target[cell["dataset"]]["run"].isin(cell["runs"])]
            for subset, rows in mine.groupby("subset"):
                entry = tested[f"{cell['dataset']}/{subset}"]
                summed = rows.groupby(["by", "index"])[["images", "correct", "weighted"]].sum()
                share = summed["correct"] / summed["images"]
                assert entry["label"] == share["class"].index.tolist()
                assert entry["accuracy"] == pytest.approx((1000 * share["class"]).tolist(), abs=0.51)
                bins = summed.loc["confidence"]
                assert [bin[0] for bin in entry["bins"]] == bins["images"].tolist()
                confidences = (bins["weighted"] / bins["images"]).tolist()
                assert [bin[1] for bin in entry["bins"]] == pytest.approx(confidences, abs=0.00051)
                assert [bin[2] for bin in entry["bins"]] == pytest.approx(share["confidence"].tolist(), abs=0.00051)
    assert sizes == {1, 2, 3}


@pytest.mark.no_cover
def test_a_number_is_the_mean_of_what_it_opens(rough: Path) -> None:
    """Every number of every table, from the cells that its link names."""
    grid = json.loads((rough / "grid.json").read_text())
    text = (rough / "report" / "index.html").read_text()
    links = re.findall(r'<a class="opens" href="#open=(table[1-4])/([\d,]+)">(.*?)</td>', text, re.DOTALL)
    for table, places, inner in links:
        cells = [grid["exhibits"][table]["cells"][int(place)] for place in places.split(",")]
        values = rough_results.over_datasets(rough, cells, "H" if cells[0]["task"] == "base_to_new" else "accuracy")
        shown = re.sub(r"<sup>.*?</sup>|<.*?>", "", inner).split()
        mean, std = f"{values.mean():.2f}", f"±{values.std(ddof=1):.2f}"
        assert shown == (["–"] if values.empty else [mean] if len(values) == 1 else [mean, std])
    assert len(links) > 150


def test_what_a_method_was_given_includes_the_training_it_starts_from(rough: Path) -> None:
    costs = pd.read_parquet(rough / "costs.parquet").set_index("run")["seconds"]
    text = " ".join(Elements((rough / "report" / "index.html").read_text()).text.split())
    for method, said in (("ivlp", "IVLP"), ("cptsum", "CPT as printed")):
        runs = [f"base_to_new/world/r1/{method}/s{seed}" for seed in (1, 2, 3)]
        spent = costs[runs].to_numpy()
        if method == rough_results.STARTED[0]:
            spent = spent + costs[[run.replace(*rough_results.STARTED) for run in runs]].to_numpy()
        told = re.search(rf"{said} World, τ = 1 12 16 SGD 0\.0025 [\d,]+ none 15 16 0 ([\d.]+) ", text)
        assert told[1] == f"{pd.Series(spent).median():.1f}"


def test_unfinished_runs_have_no_numbers(page: Elements) -> None:
    data = behind(page)
    cells = [data["cells"][i] for i in data["opens"]["table2"]]
    npt = [cell for cell in cells if cell["method"].startswith("NPT") and cell["ratio"] == 0.06]
    assert [cell["numbers"].get("H") for cell in npt] == [[61.0, 62.0, 63.0], [59.0, 60.0, None], None]


def test_class_names_cannot_leave_the_data(made: Path, page: Elements) -> None:
    assert fake_results.WICKED in behind(page)["names"]["scripts/new"]
    assert "onerror" not in (made / "report" / "index.html").read_text()


def test_command_has_the_configuration_of_the_record(made: Path, tmp_path: Path) -> None:
    assert command(tmp_path)[-2:] == ["--cores", "2"]
    record_path = tmp_path / "grid.json.provenance.json"
    for configuration, words in (("config/my paper.yaml", ["--configfile"]), ("config/config.yaml", [])):
        record = {"schema": integrity.SCHEMA, "path": "grid.json", "device": "cpu", "versions": {}, "sources": {},
                  "outputs": {}, "configuration": [configuration]}  # fmt: skip
        write_json(record_path, record | {"digest": integrity.digest(record)})
        assert command(tmp_path)[3:] == ([*words, configuration] if words else [])
    record_path.write_text("{")
    assert "--configfile" not in command(tmp_path), "a damaged record says nothing"


def test_text_is_escaped(made: Path, page: Elements) -> None:
    assert "<script>alert(1)</script> (for A & B_C)" in page.text
    assert "An invented table of 100% <b>markup</b>" in page.text


def test_first_screen_says_what_was_run_and_what_came_out(made: Path, page: Elements) -> None:
    text = " ".join(page.text.split())
    assert "The numbers printed in the paper do not apply to this experiment" in text
    assert "Backbone tiny_clip" in text
    assert "Imbalance ratios τ 1, 0.25, 0.06" in text
    assert "Zero-shot, IVLP, NPT (reconstruction), CPT (as printed), CPT" in text
    assert "Seeds 1–3 Runs" in text
    asked = {run["run"] for run in json.loads((made / "grid.json").read_text())["runs"]}
    finished = asked & set(pd.read_parquet(made / "runs.parquet")["run"])
    assert 0 < len(finished) < len(asked)
    assert f"Runs {len(finished)} of {len(asked)} finished" in text
    three = "3 datasets are too few to tell any row from CPT."
    assert f"τ = 0.06: Highest average H: CPT, 57.00 ± 1.00; next: IVLP, 55.00 ± 1.00. {three}" in text
    assert "Table 3. An invented table" in text
    assert "τ = 1: Highest average accuracy: CPT, " in text


def test_printed_experiment_has_no_warning(made: Path, tmp_path: Path) -> None:
    folder = changed(made, tmp_path / "printed", printed=True)
    make_page(folder)
    text = (folder / "report/index.html").read_text()
    assert "do not apply" not in text


@pytest.mark.parametrize("layout", ["embedded", "folders"])
def test_only_a_generated_benchmark_is_called_one(made: Path, tmp_path: Path, layout: str) -> None:
    datasets = json.loads((made / "grid.json").read_text())["datasets"]
    datasets["flowers"]["layout"] = layout
    folder = changed(made, tmp_path / "own", datasets=datasets)
    make_page(folder)
    text = (folder / "report/index.html").read_text()
    assert "The numbers printed in the paper do not apply to this experiment" in text
    assert ("generates itself" in text) == (layout == "embedded")


def test_same_inputs_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    page = changed(made, tmp_path / "again") / "report/index.html"
    page.unlink()
    make_page(tmp_path / "again")
    assert page.read_bytes() == (made / "report/index.html").read_bytes()


def test_missing_table_is_refused(made: Path, tmp_path: Path) -> None:
    folder = changed(made, tmp_path / "less")
    (folder / "tables/table1.csv").unlink()
    with pytest.raises(CptError, match=r"table1\.csv: not found"):
        make_page(folder)


A, B, C = Summary(50.0, 0.5, 3), Summary(50.25, None, 1), Summary(1.0, None, 1)
NONE = Summary(None, None, 0)


@pytest.mark.parametrize(
    ("averages", "said"),
    [
        ({"A": NONE}, "No method has finished on every dataset."),
        ({"A": A}, "Highest average H: A, 50.00 ± 0.50."),
        ({"A": A, "B": Summary(50.001, 0.5, 3)}, "Highest average H: A, 50.00 ± 0.50 and B, 50.00 ± 0.50."),
        ({"A": A, "B": B, "C": NONE}, "Highest average H: B, 50.25; next: A, 50.00 ± 0.50."),
        ({"C": A, "B": B, "A": C}, "Highest average H: B, 50.25; next: C, 50.00 ± 0.50; A is 3rd of 3 with 1.00."),
    ],
)
def test_a_headline_says_who_is_first_and_where_the_reference_stands(averages: dict[str, Summary], said: str) -> None:
    assert ranking(averages, "A", "H") == said


@pytest.mark.parametrize(
    ("p_values", "datasets", "said"),
    [
        ({"B": 0.04, "C": 0.01}, 4, "4 datasets are too few to tell any row from A."),
        ({"B": 0.25, "C": 0.75}, 11, "No difference from A passes the test (corrected p ≥ 0.05)."),
        ({"B": 0.25, "C": 0.01}, 11, "Significantly below A: C (corrected p 0.010); 1 other cannot be told from it."),
        ({"B": 0.04, "C": 0.01}, 11, "Significantly above A: B (corrected p 0.040); below A: C (corrected p 0.010)."),
        ({}, 11, "Differences were not tested."),
    ],
)
def test_a_headline_names_only_differences_that_pass_the_test(p_values: dict, datasets: int, said: str) -> None:
    assert significant_differences({"A": A, "B": B, "C": C}, "A", p_values, datasets) == said


def test_an_experiment_without_tables_by_dataset_ranks_nothing(made: Path, tmp_path: Path) -> None:
    table = json.loads((made / "grid.json").read_text())["exhibits"]["table5"]
    folder = changed(made, tmp_path / "few", exhibits={"table5": table})
    make_page(folder)
    text = " ".join(Elements((folder / "report/index.html").read_text()).text.split())
    assert "so nothing is ranked here" in text
    assert "Methods IVLP, CPT as printed, CPT, Zero-shot, NPT (reconstruction) Seeds" in text, "labels, no ids"


def test_methods_and_seeds_of_other_exhibits_are_told(made: Path, tmp_path: Path) -> None:
    exhibits = json.loads((made / "grid.json").read_text())["exhibits"]
    table, figure = exhibits["table2"], exhibits["figure4"]
    table["rows"] = [row for row in table["rows"] if row["id"] != "npt"]
    table["cells"] = [cell for cell in table["cells"] if cell["row"] != "npt"]
    for cell in table["cells"]:
        cell["runs"] = cell["runs"][:2]
    folder = changed(made, tmp_path / "other", exhibits={"table2": table, "table6": table, "figure4": figure})
    make_page(folder)
    text = " ".join(Elements((folder / "report/index.html").read_text()).text.split())
    assert "Methods Zero-shot, IVLP, CPT (as printed), CPT, NPT (reconstruction) Seeds 1, 2 (Figure 4: 1–3)" in text


def test_the_page_tells_where_its_numbers_are_from(made: Path, tmp_path: Path, monkeypatch) -> None:
    folder = changed(made, tmp_path / "origin")
    with recorded(folder / "runs.parquet"):
        pass
    record = json.loads((folder / "runs.parquet.provenance.json").read_text())
    record |= {"commit": "0123456789abcdef", "dirty": True, "cpt": "9.8.7", "time": "2031-02-03T04:05:06Z"}
    write_json(folder / "runs.parquet.provenance.json", record | {"digest": integrity.digest(record)})
    monkeypatch.setattr("importlib.metadata.metadata", lambda name: stated(name))
    pages = []
    for _ in range(2):
        make_page(folder)
        pages.append((folder / "report/index.html").read_bytes())
    assert pages[0] == pages[1]
    text = " ".join(Elements(pages[0].decode()).text.split())
    assert "Numbers gathered 2031-02-03 04:05:06 UTC" in text
    assert "Code cpt 9.8.7, commit 0123456789ab with uncommitted changes" in text
    assert re.search(r"Training 0\.\d+ hours in \d+ runs, start-up included Devices cpu", text)
    assert "Paper https://arxiv.org/abs/2605.11939 Repository https://example.org/cpt" in text


def stated(name: str) -> email.message.Message:
    """Metadata of an installed package that names its repository."""
    found = email.message.Message()
    found["Project-URL"] = "Repository, https://example.org/cpt"
    return found


@pytest.mark.no_cover
def test_ten_numbers_are_equal_in_page_table_csv_and_dialog(rough: Path) -> None:
    """To full precision: the cell of the HTML table, the CSV inside the page, the dialog's data; and pandas beside."""
    page = Elements((rough / "report" / "index.html").read_text())
    data, files = behind(page), unpacked(page, "files")
    grid = json.loads((rough / "grid.json").read_text())["exhibits"]
    found = re.findall(
        r'data-order="([\d.]+)"><a class="opens" href="#open=(table[234])/([\d,]+)">.*?([\d.]+)<',
        (rough / "report" / "index.html").read_text(),
    )
    for order, table, places, text in random.Random(5).sample(found, 10):
        cells = [grid[table]["cells"][int(place)] for place in places.split(",")]
        judged = "H" if cells[0]["task"] == "base_to_new" else "accuracy"
        if len(cells) == 1:
            told = data["cells"][data["opens"][table][int(places)]]["means"][judged][0]
        else:
            told = data["averages"][table][places][judged][0]
        label = next(row["label"] for row in grid[table]["rows"] if row["id"] == cells[0]["row"])
        note = next(row["note"] for row in grid[table]["rows"] if row["id"] == cells[0]["row"])
        lines = pd.read_csv(io.StringIO(files[f"{table}.csv"]), dtype=str)
        own = lines[lines["method"].isin([label, f"{label} ({note})"]) & (lines["metric"] == judged)]
        own = own[own["imbalance_ratio"].astype(float) == cells[0]["ratio"]]
        own = own[own["dataset"] == (cells[0]["dataset"] if len(cells) == 1 else "Avg")]
        assert told == float(order)
        assert float(order) in own["value"].astype(float).tolist()
        values = rough_results.over_datasets(rough, cells, judged)
        assert float(order) == pytest.approx(values.mean(), rel=1e-14)
        assert text == f"{float(order):.2f}"


def test_charts_have_the_values_of_the_figures(made: Path, page: Elements) -> None:
    charts, files = unpacked(page, "charts"), unpacked(page, "files")
    assert sorted(charts) == ["figure3", "figure4", "figure5", "figure6", "figure7", "figure8"]
    of = {name: pd.read_csv(io.StringIO(files[f"{name}.csv"]), float_precision="round_trip") for name in charts}
    for view in charts["figure3"]["views"]:
        names = of["figure3"]["parameter"].str.replace("_", " ").replace("etf weight", "λ_ETF")
        means = of["figure3"][names == view["name"]]
        means = means[means["statistic"] == "mean"].sort_values("x")
        assert [view["series"][0]["values"][axis] for axis in ("value", "H")] == [
            list(means["x"]),
            list(means["value"]),
        ]
    for series in charts["figure4"]["views"][0]["series"]:
        own = of["figure4"][(of["figure4"]["method"] == series["name"]) & (of["figure4"]["statistic"] == "seed")]
        assert series["values"]["H"] == list(own["value"])
    assert charts["figure6"]["y"] == ["ETF distance", "text-image alignment"]
    cost = charts["figure8"]
    for series in cost["views"][0]["series"]:
        own = of["figure8"][of["figure8"]["method"] == series["name"]].set_index("cost")
        assert series["values"]["training of a run, s"] == [own.loc["seconds", "value"]]
        assert series["values"]["H"] == [own.loc["seconds", "accuracy"]]
    assert {"learned values", "H", "tail", "ECE base"} <= set(cost["x"]) & set(cost["y"])


def test_exhibits_are_ordered_as_people_count() -> None:
    shuffled = ["table10", "table2b", "table2", "figure1"]
    assert sorted(shuffled, key=natural_order) == ["figure1", "table2", "table2b", "table10"]
