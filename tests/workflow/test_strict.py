"""`cpt verify --strict`: what is tampered with is found, also where the records are written anew to fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from cpt.cli.app import app
from cpt.data.catalog import load_catalog
from cpt.data.manifest import read_manifest
from cpt.data.split import make_split, write_split
from cpt.files.stage_files import write_json, write_parquet
from cpt.metrics.reported import MEASURES
from cpt.results.aggregate import aggregate
from cpt.workflow.bundle import bundle
from cpt.workflow.strict import CHECKS, Strict, strict
from tests.helpers.finished import RESULTS, ROOT, cpt, resealed

REAL = load_catalog(ROOT / "config/datasets.yaml")


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "other" / RESULTS.name)
    return tmp_path / "other" / RESULTS.name


def look(folder: Path) -> Strict:
    return strict(folder, REAL, lambda _: None)


def run_of(folder: Path, method: str) -> Path:
    return next((folder / "runs/base_to_new/land").glob(f"r*/{method}-*/s*"))


def rewrite(path: Path, change: Callable[[dict[str, list]], None], **metadata: Any) -> None:
    """Change the columns of a Parquet file; its metadata stay, but those given."""
    table = pa.parquet.read_table(path)
    facts = json.loads(table.schema.metadata[b"cpt"]) | metadata
    columns = table.to_pydict()
    change(columns)
    write_parquet(path, pa.table(columns, schema=table.schema), facts.pop("schema"), **facts)


def flip(columns: dict[str, list]) -> None:
    """One image that was wrong is right."""
    wrong = next(i for i, top in enumerate(columns["top_labels"]) if top[0] != columns["label"][i])
    columns["top_labels"][wrong] = [columns["label"][wrong], *columns["top_labels"][wrong][1:]]


def test_what_was_not_touched_is_accepted(made: Path) -> None:
    found = look(made)
    assert found.refusal is None
    assert [check.name for check in found.checks] == list(CHECKS)
    assert "land: made again, equal" in found.checks[3].found
    assert "photos: that cannot be checked" in found.checks[3].found
    assert "largest difference 0" in found.checks[6].found


def test_a_bundle_is_accepted_and_one_without_predictions_is_not(made: Path, tmp_path: Path) -> None:
    for predictions, refusal in ((True, None), (False, "is left out")):
        place = tmp_path / str(predictions)
        place.mkdir()
        bundle(made, tmp_path / "a.tar.gz", predictions=predictions, log=lambda _: None)
        shutil.unpack_archive(tmp_path / "a.tar.gz", place)
        found = look(place / RESULTS.name).refusal
        assert found is None if refusal is None else refusal in found


def test_a_changed_file_breaks_the_chain(copied: Path) -> None:
    path = run_of(copied, "cpt") / "predictions.parquet"
    rewrite(path, flip)
    found = look(copied)
    assert found.refusal.startswith(f"chain: {path.relative_to(copied)}: has changed since it was written")
    assert len(found.checks) == 1


def test_a_changed_prediction_does_not_give_the_metrics(copied: Path) -> None:
    rewrite(run_of(copied, "cpt") / "predictions.parquet", flip)
    refusal = look(resealed(copied)).refusal
    assert refusal.startswith("metrics: runs/base_to_new/land")
    assert "where its predictions give" in refusal


def test_a_better_number_does_not_follow_from_the_predictions(copied: Path) -> None:
    def raise_all(columns: dict[str, list]) -> None:
        columns["value"] = [value + 1 if value < 90 else value for value in columns["value"]]

    rewrite(run_of(copied, "cpt") / "metrics.parquet", raise_all)
    resealed(copied)
    aggregate(copied / "grid.json")
    refusal = look(resealed(copied)).refusal
    assert refusal.startswith("metrics: ")
    assert "/metrics.parquet: " in refusal


def test_a_better_number_in_the_table_of_runs_is_found(copied: Path) -> None:
    def one(columns: dict[str, list]) -> None:
        columns["value"][0] += 1

    rewrite(copied / "runs.parquet", one)
    assert look(resealed(copied)).refusal == ("tables of runs: runs.parquet: does not hold what the runs' files do")


@pytest.mark.parametrize("change", [{"seed": 2}, {"class_order": "random"}], ids=str)
def test_another_split_is_found(copied: Path, change: dict[str, Any]) -> None:
    """Its own file says that it is of seed 1, and of labels in order."""
    path = copied / "splits/base_to_new/land/r0.5/s1.parquet"
    manifest = read_manifest(copied / "data/land/manifest.parquet")
    given = {"protocol": "base_to_new", "imbalance_ratio": 0.5, "n_max": 4, "seed": 1, "class_order": "label"}
    table, facts = make_split(manifest, **given | change)
    write_split(path, table, facts | given)
    assert look(resealed(copied)).refusal == (
        "splits: splits/base_to_new/land/r0.5/s1.parquet: is not the split that seed 1 draws from "
        "data/land/manifest.parquet"
    )


def test_a_run_on_another_split_is_found(copied: Path) -> None:
    path = run_of(copied, "cpt") / "run.json"
    record = json.loads(path.read_text())
    record["inputs"]["split"] = "0" * 64
    write_json(path, record)
    assert "was trained on another split" in look(resealed(copied)).refusal


def test_images_that_this_package_does_not_make_are_found(copied: Path) -> None:
    def rename(columns: dict[str, list]) -> None:
        columns["class_name"] = [name.replace("a", "o") for name in columns["class_name"]]

    rewrite(copied / "data/land/manifest.parquet", rename, content_hash="0" * 64)
    assert look(resealed(copied)).refusal == "images: land: its images are not those that this package makes"


def relabel(columns: dict[str, list]) -> None:
    columns["label"] = [top[0] for top in columns["top_labels"]]


def drop(columns: dict[str, list]) -> None:
    for values in columns.values():
        del values[0]


def twice(columns: dict[str, list]) -> None:
    for values in columns.values():
        values[1] = values[0]


@pytest.mark.parametrize("change", [relabel, drop, twice])
def test_other_test_images_are_found(copied: Path, change: Callable[[dict[str, list]], None]) -> None:
    run = run_of(copied, "cpt")
    rewrite(run / "predictions.parquet", change)
    resealed(copied)
    cpt("score", run, "--split", copied / "splits/base_to_new/land/r0.5/s1.parquet")
    aggregate(copied / "grid.json")
    refusal = look(resealed(copied)).refusal
    assert refusal.startswith("predictions: ")
    assert "once, with its class" in refusal


def test_a_run_under_another_name_is_found(copied: Path) -> None:
    path = run_of(copied, "cpt") / "run.json"
    record = json.loads(path.read_text())
    record["hyperparameters"]["learning_rate"] *= 2
    write_json(path, record)
    assert "tells settings of another run" in look(resealed(copied)).refusal


def test_cells_of_other_runs_are_found(copied: Path) -> None:
    grid = json.loads((copied / "grid.json").read_text())
    one, other = (next(cell for cell in grid["exhibits"]["table2"]["cells"] if cell["row"] == row and
                       cell["dataset"] == name) for row, name in (("cpt", "land"), ("cpt", "photos")))  # fmt: skip
    one["runs"] = other["runs"]
    write_json(copied / "grid.json", grid)
    assert look(resealed(copied)).refusal.startswith(
        "grid: grid.json: table2: a cell of base_to_new on land at τ = 0.5"
    )


def test_nothing_leads_out_of_the_folder(copied: Path, tmp_path: Path) -> None:
    (copied / "notes").symlink_to(tmp_path)
    assert look(copied).refusal == "chain: notes: is a link; pack the experiment with `cpt bundle`"
    (copied / "notes").unlink()
    grid = json.loads((copied / "grid.json").read_text())
    run = grid["runs"][0]
    for change in ({"run": "../../elsewhere"}, {"run": "/etc"}, {"dataset": "../x"}, {"targets": [["/etc", "all"]]}):
        grid["runs"][0] = run | change
        write_json(copied / "grid.json", grid)
        assert "does not hold what a file of schema cpt.grid/5 does" in look(resealed(copied)).refusal


@pytest.mark.parametrize("content", ["[]", "{", '{"schema": "cpt.grid/5"}', '{"schema": "cpt.grid/5", "runs": [[]]}'])
def test_files_of_another_shape_are_refused(copied: Path, content: str) -> None:
    (copied / "grid.json").write_text(content)
    assert look(resealed(copied)).refusal.startswith("chain: ")


def test_a_method_that_is_not_here_is_named(copied: Path) -> None:
    path = run_of(copied, "cpt") / "run.json"
    write_json(path, json.loads(path.read_text()) | {"method": "os"})
    assert "its method 'os' is not known here; install the package that has it" in look(resealed(copied)).refusal


def test_an_older_bundle_may_lack_a_metric(copied: Path) -> None:
    """A measure that a later version adds; and the version itself is no reason."""
    assert "macro_base" in MEASURES
    for path in copied.glob("runs/*/*/*/*/*/metrics.parquet"):
        table = pa.parquet.read_table(path)
        facts = json.loads(table.schema.metadata[b"cpt"])
        rows = [row for row in table.to_pylist() if row["metric"] != "macro_accuracy"]
        write_parquet(path, pa.Table.from_pylist(rows, schema=table.schema), facts.pop("schema"), **facts)
    resealed(copied)
    aggregate(copied / "grid.json")
    for path in copied.rglob("*.provenance.json"):
        write_json(path, json.loads(path.read_text()) | {"cpt": "0.0.1"})
    assert look(resealed(copied)).refusal is None


def test_the_verb_tells_every_check(made: Path, copied: Path, tmp_path: Path) -> None:
    words = ["--strict", "--catalog", str(ROOT / "config/datasets.yaml"), "--json", str(tmp_path / "report.json")]
    done = CliRunner().invoke(app, ["verify", str(made), *words])
    assert done.exit_code == 0
    assert done.output.count("passed: ") == len(CHECKS)
    assert f"{made}: accepted" in done.output
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["schema"] == "cpt.verification/1"
    assert [check["outcome"] for check in told["strict"]] == ["passed"] * len(CHECKS)
    rewrite(run_of(copied, "cpt") / "predictions.parquet", flip)
    done = CliRunner().invoke(app, ["verify", str(copied), *words])
    assert done.exit_code == 1
    assert "failed: chain: runs/" in done.output
