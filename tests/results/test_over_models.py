"""``cpt across`` on invented experiments whose differences are known, against computations by hand."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from cpt.errors import CptError
from cpt.files.paths import GRID, RUNS
from cpt.files.stage_files import write_json, write_parquet
from cpt.report.terminal import across as texts
from cpt.results.cells import Results, read_results
from cpt.results.over_models import Place, across
from tests.helpers.command import here

Value = Callable[[str, str, int], float]
"""H by row, dataset and seed."""
ROWS = ("zeroshot", "ivlp", "cpt")


def experiment(
    folder: Path,
    datasets: tuple[str, ...],
    value: Value,
    *,
    backbone: str,
    rows: tuple[str, ...] = ROWS,
    seeds: tuple[int, ...] = (1, 2),
    ratios: tuple[float, ...] = (0.06,),
    left_out: int = 0,
    sha256: str | None = None,
    control: bool = False,
) -> Results:
    """Write and read a finished experiment; base and new accuracies are 10 above and 10 below H."""
    runs, cells, lines = {}, [], []
    for row, dataset, ratio in itertools.product(rows, datasets, ratios):
        named = []
        for seed in (0,) if row == "zeroshot" else seeds:
            run = f"base_to_new/{dataset}/r{1 if row == 'zeroshot' else ratio:g}/{row}/s{seed}"
            named.append(run)
            if run in runs:
                continue
            runs[run] = {"run": run, "seed": seed, "dataset": dataset, "method": row, "protocol": "base_to_new"}
            h = value(row, dataset, seed)
            for subset, metric, number in (
                ("base+new", "harmonic_mean", h),
                ("base", "accuracy", h + 10),
                ("new", "accuracy", h - 10),
            ):
                lines.append({"run": run, "target": dataset, "subset": subset, "metric": metric, "value": number})
        cells.append(
            {"row": row, "task": "base_to_new", "dataset": dataset, "ratio": ratio, "source": True, "parameter": None}
            | {"x": None, "runs": named}
        )
    shown = [{"id": row, "label": row.upper(), "note": None, "control": control and row == "zeroshot"} for row in rows]
    grid = {
        "schema": GRID,
        "backbone": backbone,
        "runs": list(runs.values()),
        "datasets": {name: {"title": name.capitalize(), "derived_split": False} for name in datasets},
        "exhibits": {"table2": {"kind": "table", "rows": shown, "cells": cells, "ratios": list(ratios)}},
    }
    write_json(folder / "grid.json", grid)
    if sha256:
        write_json(folder / "backbone.json", {"sha256": sha256})
    finished = set(list(runs)[: len(runs) - left_out])
    table = pa.Table.from_pylist([line for line in lines if line["run"] in finished])
    table = table.append_column("epoch", pa.nulls(len(table), pa.int64()))
    write_parquet(folder / "runs.parquet", table, RUNS, experiment="invented")
    return read_results(folder / "grid.json", folder / "runs.parquet")


CHANGES: dict[str, dict[str, tuple[float, ...]]] = {
    "one": {"a": (1.0, 3.0), "b": (2.0, 2.0), "c": (-1.0, 0.0)},
    "two": {"a": (3.0, 3.0), "b": (0.0, 2.0), "c": (0.0, -1.0)},
    "other": {"d": (-4.0, -2.0), "e": (5.0, 7.0)},
}
"""Model -> dataset -> IVLP minus CPT at both seeds."""


def of_model(model: str) -> Value:
    """CPT is 50 + seed on every dataset, IVLP as CHANGES says, zero-shot 40."""

    def value(row: str, dataset: str, seed: int) -> float:
        change = CHANGES[model][dataset][seed - 1] if row == "ivlp" else 0.0
        return 40.0 if row == "zeroshot" else 50.0 + seed + change

    return value


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("models")
    for model, changes in CHANGES.items():
        experiment(root / model, tuple(changes), of_model(model), backbone=model)
    return {model: root / model for model in CHANGES}


@pytest.fixture(scope="module")
def read(folders: Mapping[str, Path]) -> list[Results]:
    return [read_results(folder / "grid.json", folder / "runs.parquet") for folder in folders.values()]


def test_a_dataset_counts_once_however_many_models_see_it(read: list[Results]) -> None:
    """By hand: cells of the first world are a 2, 3; b 2, 1; c -0.5, -0.5, its units 2.5, 1.5, -0.5; then -3 and 6."""
    found = across(read, "cpt")
    assert [model.world for model in found.models] == [0, 0, 1]
    assert found.worlds == [["A", "B", "C"], ["D", "E"]]
    zeroshot, ivlp = found.lines[Place("base_to_new", "H", 0.06)]
    assert (zeroshot.row, ivlp.row, ivlp.label, found.reference) == ("zeroshot", "ivlp", "IVLP", "CPT")
    units = [2.5, 1.5, -0.5, -3.0, 6.0]
    half = scipy.stats.t.ppf(0.975, 4) * scipy.stats.sem(units)
    assert ivlp.difference == pytest.approx((1.3, 1.3 - half, 1.3 + half))
    assert (ivlp.higher, ivlp.units) == (3, 5)
    flipped = [abs(np.dot(signs, units)) for signs in itertools.product((-1, 1), repeat=5)]
    assert ivlp.p == pytest.approx(np.mean(np.array(flipped) >= abs(sum(units)) - 1e-9))
    assert ivlp.by_model == pytest.approx([(2 + 2 - 0.5) / 3, (3 + 1 - 0.5) / 3, 1.5])
    assert ivlp.by_world == pytest.approx([3.5 / 3, 1.5])
    assert (ivlp.agree, zeroshot.agree) == (3, 3)
    assert (ivlp.mean, ivlp.reference) == pytest.approx((52.8, 51.5))
    # zero-shot CLIP, one run, is compared with both seeds of CPT: 40 minus 51 and 52 everywhere
    assert (zeroshot.difference.estimate, zeroshot.p) == (-11.5, 2 / 2**5)
    assert (zeroshot.corrected, ivlp.corrected) == pytest.approx((2 * zeroshot.p, max(2 * zeroshot.p, ivlp.p)))


def test_halves_have_tests_of_their_own(read: list[Results]) -> None:
    found = across(read, "CPT")
    assert [place.metric for place in found.lines] == ["H", "base", "new"]
    base, new = (found.lines[Place("base_to_new", metric, 0.06)][1] for metric in ("base", "new"))
    assert base.difference.estimate == pytest.approx(new.difference.estimate) == pytest.approx(1.3)
    assert (base.mean, new.mean) == pytest.approx((62.8, 42.8))


def test_more_models_do_not_make_a_difference_surer(tmp_path: Path) -> None:
    """The same numbers from one, two or six models give one p and one interval."""
    values = {"a": 1.0, "b": 2.0, "c": 0.5, "d": -0.2}
    found = []
    for count in (2, 6):
        models = [
            experiment(
                tmp_path / f"{count}-{i}",
                tuple(values),
                lambda row, name, seed: 50.0 + (values[name] if row == "ivlp" else 0.0),
                backbone=f"m{i}",
                rows=("ivlp", "cpt"),
            )
            for i in range(count)
        ]
        (line,) = across(models, "cpt").lines[Place("base_to_new", "H", 0.06)]
        found.append((line.p, line.corrected, *line.difference))
    assert found[0] == pytest.approx(found[1])
    assert found[0][0] == 0.25, "of 16 sign patterns, 4 are as far from zero as 3.3: 3.7 and 3.3, and their opposites"


def test_a_model_of_the_other_sign_is_counted(tmp_path: Path) -> None:
    models = [
        experiment(
            tmp_path / str(change),
            ("a", "b"),
            lambda row, name, seed, change=change: 50.0 + (change if row == "ivlp" else 0.0),
            backbone=str(change),
            rows=("ivlp", "cpt"),
        )
        for change in (4.0, 1.0, -2.0)
    ]
    (line,) = across(models, "cpt").lines[Place("base_to_new", "H", 0.06)]
    assert (line.difference.estimate, line.by_model, line.agree) == (1.0, [4.0, 1.0, -2.0], 2)


def test_controls_are_left_out(tmp_path: Path) -> None:
    models = [
        experiment(tmp_path / name, ("a", "b", "c"), of_model("one"), backbone=name, control=True) for name in "xy"
    ]
    assert [line.row for line in across(models, "cpt").lines[Place("base_to_new", "H", 0.06)]] == ["ivlp"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ("ivlp", "cpt")}, "only one has zeroshot; give both the same rows"),
        ({"ratios": (0.06, 1.0)}, "only one has base-to-new at τ = 1; give both the same tasks and τ"),
        ({"left_out": 3}, "3 runs are not finished; run `snakemake` first"),
        ({"backbone": "one"}, r"the same backbone \(one\) on the same datasets; leave one out"),
        ({"datasets": ("a", "b")}, "share a, b, but not all datasets; give both the same ones, or none in common"),
        ({"rows": ("zeroshot", "ivlp")}, "no row 'cpt'"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, read: list[Results], changes: dict, message: str) -> None:
    wanted = {"datasets": ("a", "b", "c"), "value": of_model("two"), "backbone": "two"} | changes
    with pytest.raises(CptError, match=message):
        across([read[0], experiment(tmp_path / "second", **wanted)], "cpt")


def test_one_experiment_and_seeds_that_do_not_meet_are_refused(tmp_path: Path, read: list[Results]) -> None:
    with pytest.raises(CptError, match="at least two experiments"):
        across(read[:1], "cpt")
    other = experiment(tmp_path / "two", ("a", "b", "c"), of_model("two"), backbone="two")
    for run in other.runs.values():
        run["seed"] += 5 * (run["method"] == "ivlp")
    with pytest.raises(CptError, match="ivlp and cpt share no seed on all datasets"):
        across([read[0], other], "cpt")


def test_backbones_are_told_apart_by_their_weights(tmp_path: Path) -> None:
    """One name for two models is no problem, two names for one are."""
    datasets = ("a", "b", "c")
    one, two, again = (
        experiment(tmp_path / name, datasets, of_model("one"), backbone=called, sha256=weights)
        for name, called, weights in (("1", "tiny", "aa"), ("2", "tiny", "bb"), ("3", "other", "aa"))
    )
    assert len(across([one, two], "cpt").models) == 2
    with pytest.raises(CptError, match="the same backbone"):
        across([one, again], "cpt")


def test_the_command_says_what_its_numbers_are(folders: Mapping[str, Path]) -> None:
    paths = list(map(str, folders.values()))
    table = here("across", *paths, env={"COLUMNS": "100"})
    assert table.returncode == 0, table.stderr
    assert "base-to-new H at τ = 0.06, mean over 3 models of 2 worlds" in table.stdout
    assert "averaged over the models of a world first" in " ".join(table.stdout.split())
    assert "not of models and worlds" in " ".join(table.stdout.split())
    markdown = here("across", *paths, "--format", "md").stdout
    line = next(line for line in markdown.splitlines() if line.startswith("| IVLP"))
    assert [cell.strip() for cell in line.strip("|").split("|")][:3] == ["IVLP", "52.80", "+1.30"]
    assert line.endswith("| +1.17 … +1.50 | 3 of 3 |")


def test_data_formats_hold_the_same_numbers(folders: Mapping[str, Path]) -> None:
    paths = list(map(str, folders.values()))
    rows = list(csv.DictReader(io.StringIO(here("across", *paths, "--format", "csv").stdout)))
    whole = json.loads(here("across", *paths, "--format", "json").stdout)
    assert whole["schema"] == texts.SCHEMA
    assert [float(row["difference"]) for row in rows] == [row["difference"] for row in whole["rows"]]
    assert [len(row["by_model"]) for row in whole["rows"]] == [3] * 6
    assert [row["row"] for row in rows] == ["zeroshot", "ivlp"] * 3


def test_a_folder_without_results_is_one_line(tmp_path: Path) -> None:
    done = here("across", str(tmp_path), str(tmp_path))
    assert done.stderr.strip() == (
        f"cpt: error: {tmp_path}: no results (runs.parquet) there; give results/<experiment> of a finished one"
    )
