"""The workflow through Snakemake itself, on a small configuration that has every table and figure."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cpt.files.paths import GRID
from cpt.files.stage_files import read_json
from cpt.methods.base import registry
from cpt.report.drawing.make import make_figure
from cpt.report.tables import make_table
from cpt.results.aggregate import aggregate
from tests.helpers.workflow import copy_project, planned, snakemake

EVERY_METHOD = {f"row_{name}": {"method": name} for name in registry.names()}
SMALL = {
    "extends": "config/config.yaml",
    "experiment": "small",
    "seeds": [1, 2],
    "imbalance_ratios": [0.25],
    "overrides": [
        {"set": {"epochs": 2}},
        {"methods": ["cpt"], "set": {"classes_per_cluster": 2}},
    ],
    "variants": EVERY_METHOD,
    "tasks": {
        "base_to_new": {"datasets": ["land", "small_flowers"]},
        "cross_dataset": {"source": "land", "targets": ["small_flowers"]},
        "domain_generalization": {"source": "land", "targets": ["small_flowers"]},
        "few_shot": None,
    },
    "catalog": "catalog.yaml",
    "exhibits": {
        "table1": {"ratios": None, "seeds": [1]},
        "table2": {"variants": list(EVERY_METHOD)},
        "table3": {"ratios": None},
        "table4": {"ratios": None},
        "table5": {"ratios": None, "datasets": ["land"]},
        "figure1": {"ratios": None, "dataset": "small_flowers", "stability": {"epochs": 2, "seeds": [1, 2]}},
        "figure2": {"ratios": None, "dataset": "small_flowers"},
        "figure3": {"ratios": None, "datasets": ["land"], "sweep": {"tetf_weight": [0, 0.25], "cc_weight": None, "rs_weight": None}},
        "figure4": {"ratios": None, "datasets": ["land"], "seeds": [1, 2]},
        "figure5": {"ratios": None, "datasets": ["land"], "sweep": {"classes_per_cluster": [2, 5]}},
        "figure6": {"ratios": None, "datasets": ["land"]},
        "figure7": {"ratios": None},
        "figure8": {"ratios": None},
    },
}  # fmt: skip
CATALOG = {
    "land": {"title": "Land", "layout": "embedded", "per_class": {"train": 17, "test": 6}},
    "small_flowers": {
        "title": "Flowers",
        "layout": "embedded",
        "key": "flowers",
        "per_class": {"train": 16, "test": 2},
    },
}
TABLES = [f"tables/table{i}.{suffix}" for i in (1, 2, "2b", *range(3, 8)) for suffix in ("csv", "md", "tex", "html")]
FIGURES = [f"figures/figure{i}.{suffix}" for i in range(1, 9) for suffix in ("svg", "pdf", "png", "csv", "txt")]


def configuration(folder: Path, name: str, **changes) -> list[str]:
    (folder / name).write_text(yaml.safe_dump(SMALL | changes))
    return ["--configfile", name]


def project(folder: Path, root: Path) -> Path:
    """A copy of what the workflow needs, with the small configuration."""
    copy_project(folder, root)
    (folder / "catalog.yaml").write_text(yaml.safe_dump(CATALOG))
    configuration(folder, "small.yaml")
    return folder


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = project(tmp_path_factory.mktemp("workflow") / "a folder with spaces", root)
    snakemake(folder, "--configfile", "small.yaml")
    return folder


@pytest.fixture
def finished(made_once: Path) -> Path:
    """A finished small experiment with its own configuration; tests leave the results as they find them."""
    configuration(made_once, "small.yaml")
    return made_once


@pytest.mark.slow
def test_everything_is_made(finished: Path) -> None:
    results = finished / "results/small"
    for name in ("runs.parquet", "costs.parquet", "report/index.html", *TABLES, *FIGURES):
        assert (results / name).stat().st_size > 0, name
    csv = [line.split(",") for line in (results / "tables/table2.csv").read_text().splitlines()]
    assert csv[0] == ["table", "imbalance_ratio", "method", "dataset", "metric", "value", "std", "n_seeds", "p_holm"]
    assert not any(line[7] == "0" for line in csv), "no missing cells"
    assert not list(finished.glob("work/**/*.checkpoint"))
    assert planned(finished, "--configfile", "small.yaml") == {}


@pytest.mark.slow
def test_deleted_files_are_made_again_with_what_depends_on_them(finished: Path) -> None:
    """A table, and then the metrics of a run as well."""
    results = finished / "results/small"
    tables = {name: (results / name).read_bytes() for name in TABLES}
    (results / "tables/table2.csv").unlink()
    assert planned(finished, "--configfile", "small.yaml") == {"table": 1, "page": 1, "all": 1}
    victim = next((results / "runs").rglob("metrics.parquet"))
    kept = victim.read_bytes()
    victim.unlink()
    jobs = planned(finished, "--configfile", "small.yaml")
    assert jobs == {"score": 1, "aggregate": 1, "table": 8, "figure": 8, "ledger": 1, "page": 1, "all": 1}
    snakemake(finished, "--configfile", "small.yaml")
    assert victim.read_bytes() == kept
    assert {name: (results / name).read_bytes() for name in TABLES} == tables


@pytest.mark.slow
def test_what_changes_no_result_trains_nothing(finished: Path) -> None:
    titled = {name: entry | {"title": "Another title"} for name, entry in CATALOG.items()}
    (finished / "catalog.yaml").write_text(yaml.safe_dump(titled))
    try:
        sets = {"unused": ["the {}"]}
        jobs = planned(finished, *configuration(finished, "small.yaml", checkpoint_interval=5.0, templates=sets))
        fewer = planned(finished, *configuration(finished, "small.yaml", seeds=[1]))
    finally:
        (finished / "catalog.yaml").write_text(yaml.safe_dump(CATALOG))
    assert set(jobs) == {"grid", "aggregate", "table", "figure", "ledger", "page", "all"}
    assert "train" not in fewer


@pytest.mark.slow
def test_changes_on_the_command_line_are_refused(finished: Path) -> None:
    done = snakemake(finished, "--configfile", "small.yaml", "--config", "n_max=8", "-n", check=False)
    assert done.returncode != 0
    assert "put the changes into a file" in done.stdout + done.stderr


@pytest.mark.slow
def test_a_changed_hyperparameter_reruns_only_its_runs(finished: Path) -> None:
    changed = {"tetf_rs": {"method": "cpt", "label": "+ TETF + RS", "set": {"cc_weight": 0, "rs_weight": 0.2}}}
    jobs = planned(finished, *configuration(finished, "small.yaml", variants=EVERY_METHOD | changed))
    # its runs: 2 datasets base-to-new, one all classes
    assert jobs["train"] == jobs["predict"] == jobs["score"] == 3
    assert not {"data", "split", "text_features", "backbone", "clusters"} & set(jobs)


@pytest.mark.slow
def test_another_seed_only_adds(finished: Path) -> None:
    jobs = planned(finished, *configuration(finished, "small.yaml", seeds=[1, 2, 3]))
    more = planned(finished, *configuration(finished, "small.yaml", seeds=[1, 2, 3, 4]))
    assert jobs["train"] > 0
    assert more["train"] == 2 * jobs["train"], "existing seeds are not trained again"
    assert not {"data", "text_features", "backbone"} & set(jobs)


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_bytes(finished: Path, tmp_path: Path, root: Path) -> None:
    """SIGKILL of a training in the middle and of Snakemake, then once more to the end.

    In another clone, with one seed and the tables that have every method and task. Clone, catalog and configuration
    are called like commands and an option: they are names and nothing more.
    """
    folder = project(tmp_path / "it's a $(touch hacked) `touch hacked` folder; touch hacked", root)
    catalog = 'cata\'log $(touch hacked) "x".yaml'
    (folder / "catalog.yaml").rename(folder / catalog)
    exhibits = {
        name: what if name in ("table2", "table3", "table4") else None for name, what in SMALL["exhibits"].items()
    }
    changes = {"catalog": catalog, "seeds": [1], "exhibits": exhibits}
    call = "=".join(configuration(folder, "-own.yaml", **changes, checkpoint_interval=0.0, fork_server=False))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--resources", "gpu=2", call]
    for _ in range(20):  # the kill of a very short training may come after its end
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not list(folder.glob("work/**/s*.checkpoint")):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if list(folder.glob("work/**/s*.checkpoint")):
            break
        snakemake(folder, call, "--unlock")
    assert list(folder.glob("work/**/s*.checkpoint")), "a training that has saved its state"
    configuration(folder, "-own.yaml", **changes)
    snakemake(folder, call, "--unlock")
    snakemake(folder, call)
    results, undisturbed = folder / "results/small", finished / "results/small"
    runs, others = (pd.read_parquet(place / "runs.parquet") for place in (results, undisturbed))
    assert set(runs["method"]) == set(registry.names())
    assert set(runs["run"]) <= set(others["run"])
    pd.testing.assert_frame_equal(
        runs, others[others["run"].isin(runs["run"])].reset_index(drop=True), check_exact=True
    )
    for name in ("prompts.safetensors", "predictions.parquet", "metrics.parquet"):
        for path in (results / "runs").rglob(name):
            assert path.read_bytes() == (undisturbed / path.relative_to(results)).read_bytes(), path
    resumed = [path for path in (results / "runs").rglob("run.json") if '"resumed": true' in path.read_text()]
    assert resumed
    assert (results / "report/index.html").is_file()
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.slow
def test_a_failing_run_leaves_the_others_and_names_its_log(finished: Path, tmp_path: Path, root: Path) -> None:
    folder = project(tmp_path / "clone", root)
    shutil.copytree(finished / "results", folder / "results")
    wild = {"ivlp": {"method": "ivlp", "set": {"learning_rate": 1e30, "warmup_epochs": 0}}}
    configuration(folder, "wild.yaml", variants=EVERY_METHOD | wild)
    shutil.copytree(finished / ".snakemake/metadata", folder / ".snakemake/metadata")
    done = snakemake(folder, "--configfile", "wild.yaml", check=False)
    assert done.returncode != 0
    text = done.stdout + done.stderr
    assert "lower learning_rate" in text
    assert re.search(r"logs/small/train/\S+ivlp-\S+\.log", text)
    assert (folder / "results/small/tables/table1.csv").exists()


@pytest.mark.slow
def test_the_snakemake_report(finished: Path) -> None:
    snakemake(finished, "--configfile", "small.yaml", "--report", "report.zip")
    assert (finished / "report.zip").stat().st_size > 10_000


@pytest.mark.slow
def test_a_bad_configuration_is_one_line(finished: Path) -> None:
    done = snakemake(finished, *configuration(finished, "bad.yaml", imbalance_ratios=[1.5]), "-n", check=False)
    assert done.returncode != 0
    text = done.stdout + done.stderr
    assert "cpt: error: bad.yaml: imbalance_ratios.0: 1.5: must be at most 1" in text
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("runs/base_to_new/land/r0.25/{run}/run.json", "run base_to_new/land/r0.25/{run}: small has none of this name"),
        ("clusters/base_to_new/land/x/s1.parquet", "clusters clusters/base_to_new/land/x/s1.parquet: small has none"),
        (
            "figures/table2.svg",
            "results/small/figures/table2.svg: small makes no such file; did you mean results/small/",
        ),
    ],
)
def test_a_target_that_the_experiment_does_not_have(finished: Path, target: str, told: str) -> None:
    run = next((finished / "results/small/runs/base_to_new/land/r0.25").iterdir()).name
    wanted = f"results/small/{target}".format(run=run)
    done = snakemake(finished, "-n", wanted, "--configfile", "small.yaml", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"cpt: error: {told.format(run=run)}")


@pytest.mark.slow
def test_a_part_gives_the_same_tables_and_figures_as_the_whole(finished: Path, tmp_path: Path) -> None:
    results = tmp_path / "results/small"
    shutil.copytree(finished / "results/small", results)
    for name, exhibit in read_json(results / "grid.json", GRID)["exhibits"].items():
        aggregate(results / "grid.json", name)
        part, kind = results / "parts" / name / "runs.parquet", "tables" if exhibit["kind"] == "table" else "figures"
        make = make_table if kind == "tables" else make_figure
        make(results / "grid.json", part, name, tmp_path / kind)
    made = [path for kind in ("tables", "figures") for path in (tmp_path / kind).iterdir()]
    assert len(made) == len(TABLES + FIGURES)
    for path in made:
        assert path.read_bytes() == (results / path.relative_to(tmp_path)).read_bytes(), path


CLAIM = "from pathlib import Path; from cpt.workflow import instance; instance.claim(Path('work/small')); input()"


@pytest.mark.slow
def test_while_another_snakemake_works(finished: Path) -> None:
    """Whatever would change something is refused in one line, also what would take its locks; looking is not."""
    configuration(finished, "other.yaml", experiment="other")
    note = finished / "work/small/snakemake.json"
    first = subprocess.Popen([sys.executable, "-c", CLAIM], cwd=finished, stdin=subprocess.PIPE)
    try:
        while not note.exists():
            time.sleep(0.05)
        for words in (["small.yaml"], ["small.yaml", "--unlock"], ["other.yaml", "--unlock"]):
            done = snakemake(finished, "--configfile", *words, check=False)
            assert done.returncode == 1
            assert re.match(r"cpt: error: .*snakemake \(pid \d+ .* works on small", done.stderr.splitlines()[-1])
        for words in (["-n"], ["--summary"], ["--dag"], ["--list-rules"], ["--report", "report.html"]):
            snakemake(finished, "--configfile", "small.yaml", *words)
    finally:
        first.kill()
        first.wait()
    snakemake(finished, "--configfile", "small.yaml")
    assert not note.exists()


@pytest.mark.slow
def test_verbs_work_by_hand_on_what_the_pipeline_wrote(finished: Path, tmp_path: Path) -> None:
    results = finished / "results/small"
    run = next(path.parent for path in (results / "runs/base_to_new/land").rglob("run.json") if "cpt-" in str(path))
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    split = results / "splits" / run.relative_to(results / "runs").parent.parent / f"{run.name}.parquet"
    for name in ("predictions.parquet", "metrics.parquet"):
        (copy / name).unlink()
    targets = ["--target", "land/base", "--target", "land/new"]
    asked = read_json(results / "grid.json", GRID)["runs"]
    clusters = next(
        found["measured_clusters"] for found in asked if found["run"] == str(run.relative_to(results / "runs"))
    )
    for words in (
        ["predict", str(copy), "--results", str(results), *targets],
        ["score", str(copy), "--split", str(split), "--clusters", str(results / clusters)],
    ):
        subprocess.run([sys.executable, "-m", "cpt", *words], check=True, cwd=tmp_path, capture_output=True)
    for name in ("predictions.parquet", "metrics.parquet"):
        assert (copy / name).read_bytes() == (run / name).read_bytes()


@pytest.mark.slow
def test_a_change_that_snakemake_cannot_see_is_refused(tmp_path: Path, root: Path) -> None:
    """As in results that were copied without Snakemake's notes: everything would be taken for made."""
    folder = project(tmp_path / "copied", root)
    words = ["--configfile", "small.yaml"]
    snakemake(folder, *words, "--until", "grid")
    assert "grid" not in planned(folder, *words)
    configuration(folder, "small.yaml", seeds=[7])
    assert planned(folder, *words)["grid"] == 1
    said = snakemake(folder, *words, "-n", "--rerun-triggers", "mtime", check=False)
    assert said.returncode == 1
    assert said.stderr.strip().endswith("leave out --rerun-triggers, so that what it changes is made again")
    shutil.rmtree(folder / ".snakemake")
    said = snakemake(folder, *words, "-n", check=False)
    assert said.returncode == 1
    fix = said.stderr.strip().split("`")[-2]
    assert fix == "rm -r results/small"
    subprocess.run(fix.split(), cwd=folder, check=True)
    assert planned(folder, *words)["grid"] == 1
