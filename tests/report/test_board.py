"""`cpt board`: what it accepts and refuses, what it writes, and that nothing of a stranger gets out of its text."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Page, expect
from typer.testing import CliRunner

from cpt.cli.app import app
from cpt.data.catalog import load_catalog
from cpt.data.manifest import read_manifest
from cpt.data.split import make_split, write_split
from cpt.files.stage_files import read_parquet, write_json, write_parquet
from cpt.report.board.files import COLUMNS, SCHEMA
from cpt.report.board.make import Outcome, make_board
from cpt.report.board.rows import merged, plain, read_rows
from cpt.report.board.tables import in_settings
from cpt.results.aggregate import aggregate
from cpt.results.cells import read_results
from cpt.results.stats import t_interval
from cpt.workflow.bundle import bundle
from cpt.workflow.submissions import find
from tests.helpers.finished import ROOT, resealed

CATALOG = ROOT / "config/datasets.yaml"
WICKED = '=<img src=x onerror=alert(1)></script><script>alert(2)</script>{{ 7 * 7 }}\u202e "&'
RUN = "runs/base_to_new/land/r0.5"


def rewrite(path: Path, change: Callable[[dict[str, list]], None]) -> None:
    table = pq.read_table(path)
    facts, columns = json.loads(table.schema.metadata[b"cpt"]), table.to_pydict()
    change(columns)
    write_parquet(path, pa.table(columns, schema=table.schema), facts.pop("schema"), **facts)


def change_prediction(folder: Path) -> None:
    def flip(columns: dict[str, list]) -> None:
        wrong = next(i for i, top in enumerate(columns["top_labels"]) if top[0] != columns["label"][i])
        columns["top_labels"][wrong] = [columns["label"][wrong], *columns["top_labels"][wrong][1:]]

    rewrite(next(folder.glob(f"{RUN}/cpt-*/s1/predictions.parquet")), flip)


def change_metric(folder: Path) -> None:
    def higher(columns: dict[str, list]) -> None:
        columns["value"] = [value + 1 if value < 90 else value for value in columns["value"]]

    rewrite(next(folder.glob(f"{RUN}/cpt-*/s1/metrics.parquet")), higher)
    resealed(folder)
    aggregate(folder / "grid.json")
    resealed(folder)


def change_split(folder: Path) -> None:
    path, manifest = folder / "splits/base_to_new/land/r0.5/s1.parquet", folder / "data/land/manifest.parquet"
    told = {"protocol": "base_to_new", "imbalance_ratio": 0.5, "n_max": 4, "seed": 1, "class_order": "label"}
    table, facts = make_split(read_manifest(manifest), **told | {"seed": 7})
    write_split(path, table, facts | told)
    resealed(folder)


def slow_machine(folder: Path) -> None:
    """Equal runs on a machine that takes twice as long, and labels of somebody who means no good."""
    for path in folder.glob("runs/**/run.json"):
        record = json.loads(path.read_text())
        write_json(path, record | {"seconds": 2 * record["seconds"], "device_name": WICKED})
    grid = json.loads((folder / "grid.json").read_text())
    for exhibit in grid["exhibits"].values():
        for row in exhibit["rows"]:
            row["label"] = WICKED
    grid["backbone"] = WICKED
    write_json(folder / "grid.json", grid)
    resealed(folder)
    aggregate(folder / "grid.json")
    resealed(folder)


def packed(made: Path, folder: Path, change: Callable[[Path], None] | None = None, by: str | None = None) -> Path:
    """An archive of the experiment in a folder of its own, changed after it was packed."""
    folder.mkdir()
    archive = folder / "slice.tar.gz"
    bundle(made, archive, by=by, log=lambda _: None)
    if change:
        shutil.unpack_archive(archive, folder / "open")
        change(folder / "open/slice")
        with tarfile.open(archive, "w:gz", compresslevel=1) as file:
            file.add(folder / "open/slice", "slice")
        shutil.rmtree(folder / "open")
    return archive


def boarded(places: list[Path], output: Path) -> dict[str, Outcome]:
    return {each.name: each for each in make_board(places, output, load_catalog(CATALOG), lambda _: None)}


@pytest.fixture(scope="module")
def submitted(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of several people, each in a folder."""
    folder = tmp_path_factory.mktemp("submitted")
    packed(made, folder / "alice", by="Alice, Lab A")
    packed(made, folder / "wicked", slow_machine, by=WICKED)
    packed(made, folder / "prediction", change_prediction)
    packed(made, folder / "metric", change_metric)
    packed(made, folder / "split", change_split)
    (folder / "escape").mkdir()
    with tarfile.open(folder / "escape/slice.tar.gz", "w:gz") as file:
        entry = tarfile.TarInfo("slice/../../grid.json")
        entry.size = 2
        file.addfile(entry, io.BytesIO(b"{}"))
    (folder / "nothing").mkdir()
    (folder / "nothing/slice.tar.gz").write_bytes(b"no archive")
    return folder


@pytest.fixture(scope="module")
def board(submitted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Outcome], Path]:
    output = tmp_path_factory.mktemp("board") / "board"
    return boarded(sorted(submitted.iterdir()), output), output


# ---- accepted and refused ----------------------------------------------------------------------


def test_the_first_is_shown_and_those_tampered_with_are_refused_with_the_reason(board) -> None:
    outcomes, output = board
    reasons = {name: outcome.refusal for name, outcome in outcomes.items()}
    assert reasons.pop("alice-slice") is None
    assert reasons.pop("wicked-slice") is None
    assert reasons["prediction-slice"].startswith(f"chain: {RUN}/cpt-")
    assert "/predictions.parquet: has changed since it was written" in reasons["prediction-slice"]
    assert reasons["metric-slice"].startswith(f"metrics: {RUN}/cpt-")
    assert "where its predictions give" in reasons["metric-slice"]
    assert reasons["split-slice"].startswith("splits: splits/base_to_new/land/r0.5/s1.parquet: is not the split that")
    assert "slice/../../grid.json" in reasons["escape-slice"]
    assert reasons["nothing-slice"] == "slice.tar.gz: is no zip or tar archive; delete it and fetch again"
    page = (output / "index.html").read_text()
    assert "5 of 7 bundles refused." in page
    shown = page.partition('id="refused"')[2].partition("</div>")[0]
    for name, reason in reasons.items():
        assert name in shown
        assert reason.partition(" (")[0].split("'")[0] in shown


def test_every_bundle_has_a_record_beside_the_page(board, submitted: Path) -> None:
    outcomes, output = board
    assert {path.stem for path in (output / "records").iterdir()} == set(outcomes)
    record = json.loads((output / "records/alice-slice.json").read_text())
    assert record["outcome"] == "accepted"
    assert record["by"] == "Alice, Lab A"
    assert [check["outcome"] for check in record["checks"]] == ["passed"] * 8
    assert {"cpt", "commits", "devices", "gathered", "backbone", "board", "libraries", "notices"} <= record.keys()
    assert {"archive", "grid.json", "runs.parquet", "costs.parquet"} == record["sha256"].keys()
    assert "splits/base_to_new/land/r0.5/s1.parquet" in record["splits"]
    refused = json.loads((output / "records/split-slice.json").read_text())
    assert refused["checks"][-1]["outcome"] == "failed"
    assert str(output.parent) not in json.dumps([record, refused])
    assert str(submitted) not in (output / "index.html").read_text(), "no path of this machine"


def test_links_lead_to_records_that_are_there(board) -> None:
    _, output = board
    page = (output / "index.html").read_text()
    for record in re.findall(r'href="(records/[^"]+)"', page):
        assert (output / record).is_file()
    for place in re.findall(r'<a [^>]*href="#([^"]+)"', page):
        assert f'id="{place}"' in page


def test_no_text_of_a_stranger_is_markup(board) -> None:
    _, output = board
    page = (output / "index.html").read_text()
    assert "onerror=alert(1)&gt;" in page, "it is there, as text"
    assert "<img" not in page
    assert "alert(2)</script>" not in page
    assert "\u202e" not in page
    assert "49" not in re.findall(r"script&gt;(\S+)", page)
    assert page.count("<script") == 3, "two packed libraries and the page's own"


def test_the_page_asks_for_nothing_of_the_network(board) -> None:
    page = (board[1] / "index.html").read_text()
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "default-src 'none'" in page


ODD: dict[str, Callable[[dict], None]] = {
    "label": lambda grid: [row.pop("label") for row in grid["exhibits"]["table2"]["rows"]],
    "cells": lambda grid: [cell.update(runs=[]) for cell in grid["exhibits"]["table2"]["cells"]],
    "seed": lambda grid: [run.update(seed=str(run["seed"])) for run in grid["runs"]],
    "groups": lambda grid: grid["class_groups"].update(tail=float("nan")),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_bundle_is_refused_and_harms_no_other(made: Path, copied: Path, tmp_path: Path, name: str) -> None:
    grid = json.loads((copied / "grid.json").read_text())
    ODD[name](grid)
    (copied / "grid.json").write_text(json.dumps(grid, indent=1, sort_keys=True) + "\n")
    resealed(copied)
    found = boarded([made, copied], tmp_path / "board")
    assert [outcome.refusal is None for outcome in found.values()] == [True, False]


def test_odd_facts_of_a_bundle_are_text(made: Path, copied: Path, tmp_path: Path) -> None:
    listed = {"schema": "cpt.bundle/1", "experiment": "x", "left_out": {}, "by": {"<b>": [1]}}
    write_json(copied / "bundle.json", listed)
    changed(copied, "backbone.json", name=["<i>"])
    boarded([copied], tmp_path / "board")
    page = (tmp_path / "board/index.html").read_text()
    assert "{&#39;&lt;b&gt;&#39;: [1]}" in page
    assert "<i>" not in page
    changed(copied, "backbone.json", sha256=5)
    assert boarded([copied], tmp_path / "board")["slice"].refusal.startswith("does not hold what")


def test_a_later_board_removes_records_of_an_earlier_one_and_nothing_else(submitted: Path, tmp_path: Path) -> None:
    records = tmp_path / "board/records"
    records.mkdir(parents=True)
    (records / "mine.json").write_text("{}")
    boarded([submitted / "alice", submitted / "nothing"], tmp_path / "board")
    boarded([submitted / "alice/slice.tar.gz"], tmp_path / "board")
    assert {path.name for path in records.iterdir()} == {"mine.json", "slice.json"}


def test_a_bundle_that_is_given_twice_counts_once(submitted: Path, tmp_path: Path) -> None:
    shutil.copy(submitted / "alice/slice.tar.gz", tmp_path / "again.tar.gz")
    found = boarded([submitted / "alice/slice.tar.gz", tmp_path / "again.tar.gz"], tmp_path / "board")
    assert found["again"].refusal == "is a copy of slice; give each bundle once"


# ---- the numbers -------------------------------------------------------------------------------


def test_numbers_are_those_of_the_experiment(board, made: Path) -> None:
    table, facts = read_parquet(board[1] / "board.parquet", SCHEMA)
    assert table.schema.remove_metadata() == COLUMNS
    assert facts["bundles"].keys() == {"alice-slice", "wicked-slice"}
    rows = {(row["row"], row["bundle"]): row for row in table.to_pylist()}
    own = rows["cpt", "alice-slice"]
    results = read_results(made / "grid.json", made / "runs.parquet")
    cells = [c for c in results.grid["exhibits"]["table2"]["cells"] if c["row"] == "cpt" and c["ratio"] == 0.5]
    values = [results.seeds(cell)[1] for cell in cells]
    assert own["value"] == pytest.approx(sum(values) / 2)
    assert own["value_low"] is None, "one seed has no interval"
    assert (own["metric"], own["seeds"], own["datasets"]) == ("H", [1], ["land", "photos"])
    assert (own["rank_first"], own["rank_last"]) == (1, 4)
    assert own["knowledge"] == "none"
    assert own["hours"] > 0
    assert own["also_in"] == ["wicked-slice"], "the same row of another machine stands once"
    assert own["also_differs"] == 0
    assert {bundle for _, bundle in rows} == {"alice-slice"}


def test_the_csv_holds_the_same_and_no_formula(submitted: Path, tmp_path: Path) -> None:
    boarded([submitted / "wicked"], tmp_path)
    with (tmp_path / "board.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table, _ = read_parquet(tmp_path / "board.parquet", SCHEMA)
    assert [float(row["value"]) for row in rows] == table["value"].to_pylist()
    assert rows[0]["label"] == f"'{plain(WICKED)}"
    assert table["label"][0].as_py() == plain(WICKED)
    assert list(rows[0]) == table.column_names


def changed(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    write_json(path, json.loads(path.read_text()) | changes)
    resealed(folder)


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copied/slice")
    return tmp_path / "copied/slice"


def settings_of(*folders: Path) -> list[list[str]]:
    rows = [row for position, folder in enumerate(folders) for row in read_rows(folder, str(position))]
    return [[f"{row.bundle} {row.row}" for row, _ in found.rows] for found in in_settings(merged(rows))]


def test_another_backbone_is_another_table(made: Path, copied: Path) -> None:
    assert len(settings_of(made, copied)) == 1
    changed(copied, "backbone.json", sha256="0" * 64)
    assert {frozenset(row[0] for row in rows) for rows in settings_of(made, copied)} == {frozenset("0"), frozenset("1")}


def test_other_images_are_another_table(made: Path, copied: Path) -> None:
    path = copied / "data/photos/manifest.parquet"
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"cpt"]) | {"content_hash": "0" * 64}
    write_parquet(path, table, facts.pop("schema"), **facts)
    resealed(copied)
    assert len(settings_of(made, copied)) == 2


def test_of_several_the_row_with_most_seeds_is_shown(made: Path) -> None:
    first, second = (read_rows(made, name) for name in "ab")
    row = next(row for row in second if row.row == "cpt")
    more = {place._replace(seed=seed): value + 1 for place, value in row.numbers.items() for seed in (1, 2)}
    longer = row.__class__(**vars(row) | {"seeds": (1, 2), "numbers": more, "also": []})
    shown = next(row for row in merged([*first, longer]) if row.row == "cpt")
    assert (shown.bundle, shown.also[0].bundle, shown.also[0].numbers) == ("b", "a", 2)
    assert shown.also[0].largest == pytest.approx(1)


def test_a_row_without_its_seeds_is_not_ranked_and_controls_are_last(made: Path) -> None:
    rows = read_rows(made, "a")
    as_control = [row.__class__(**vars(row) | {"control": row.row == "cpt"}) for row in rows]
    found = [(row.row, rank is None) for row, rank in in_settings(as_control)[0].rows]
    assert found[-1] == ("cpt", True)
    assert not any(unranked for _, unranked in found[:-1])
    without = [row.__class__(**vars(row) | {"seeds": (), "numbers": {}, "means": {}}) for row in rows]
    assert all(rank is None for _, rank in in_settings(without)[0].rows)


def test_intervals_are_students() -> None:
    assert t_interval([60.0, 62.0]).high == pytest.approx(61 + 12.706204736432095)


def test_what_a_stranger_wrote_becomes_a_line() -> None:
    assert plain(" a\n\tb\x00\u202ec ") == "a bc"
    assert len(plain("x" * 1000)) == 120
    assert plain("+ TETF → τ") == "+ TETF → τ"


# ---- the verb ----------------------------------------------------------------------------------


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["board", *map(str, words), "--catalog", str(CATALOG)])


def test_the_exit_code_is_1_where_nothing_is_accepted(submitted: Path, tmp_path: Path) -> None:
    done = run(submitted / "nothing", "--output", tmp_path / "board")
    assert done.exit_code == 1
    assert "nothing-slice" not in done.output, "one alone needs no folder's name"
    assert "slice: refused: " in done.output
    assert "none of 1 bundles is accepted; nothing is written" in done.output
    assert not (tmp_path / "board").exists()


@pytest.mark.parametrize("words", [[], ["--require-all"]])
def test_a_refused_bundle_is_named_and_counts_if_one_asks(submitted: Path, tmp_path: Path, words: list[str]) -> None:
    done = run(submitted / "alice", submitted / "prediction", "--output", tmp_path / "board", *words)
    assert done.exit_code == len(words)
    assert "alice-slice: accepted" in done.output
    assert "prediction-slice: refused: chain: " in done.output
    assert "1 of 2 bundles" in done.output


def test_bundles_are_found_in_folders(made: Path, submitted: Path, tmp_path: Path) -> None:
    assert find([made]) == {"slice": made}
    assert find([made.parent]) == {"slice": made}
    assert list(find([submitted / "alice", submitted / "split"])) == ["alice-slice", "split-slice"]
    (tmp_path / "empty").mkdir()
    for place, problem in (("empty", "holds no bundle"), ("absent", "not found")):
        done = CliRunner().invoke(app, ["board", str(tmp_path / place), "--catalog", str(CATALOG)])
        assert problem in str(done.exception)


def test_an_experiment_is_not_overwritten(made: Path) -> None:
    assert "is the folder of an experiment" in str(run(made, "--output", made).exception)


# ---- in a browser ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_in_a_browser(board, tab: Page, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(f"file://{board[1] / 'index.html'}")
    tab.wait_for_selector("html[data-ready]", state="attached")
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    rows = tab.locator("section.exhibit tbody tr")
    expect(tab.locator("#count")).to_have_text("4 rows")
    tab.locator("[name=parameters]").fill("1000")
    expect(tab.locator("#count")).to_have_text("2 rows")
    expect(rows).to_have_count(2)
    tab.locator("[name=parameters]").fill("-1")
    expect(tab.locator("section.exhibit")).to_be_hidden()
    tab.get_by_role("button", name="Show all").click()
    expect(tab.locator("#count")).to_have_text("4 rows")
    tab.locator("[name=knowledge]").select_option("none")
    expect(rows).to_have_count(4)
    tab.locator("section.exhibit thead th", has_text="Learned values").click()
    expect(rows.first).to_contain_text("1,280")
    tab.locator("section.exhibit thead th", has_text="Rank").click()
    tab.locator("section.exhibit thead th", has_text="Settings").click()
    expect(rows.first).to_contain_text("coop-")
    rows.first.locator("a").click()
    expect(tab.locator("#bundle-1 h3")).to_be_in_viewport()
