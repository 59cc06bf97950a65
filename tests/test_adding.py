"""The worked examples of docs/adding.md, run as they stand."""

from __future__ import annotations

import csv
import inspect
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

import cpt.methods
from cpt.data.catalog import load_catalog
from cpt.data.make_manifest import make_manifest
from cpt.data.manifest import read_manifest
from cpt.data.split import make_split
from cpt.experiment.config import load
from cpt.experiment.exhibits import table_suffixes
from cpt.experiment.grid import build
from cpt.files.paths import RUNS
from cpt.files.provenance import PACKAGE
from cpt.files.stage_files import parse_json, read_parquet, write_parquet
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import TrainingHyperparameters
from cpt.methods.base.method import Method
from tests.helpers.contract import Toy
from tests.helpers.workflow import copy_project
from tests.methods import test_methods as contract

DOCUMENT = Path("docs/adding.md").read_text()
CONTRACT = [
    test
    for name, test in vars(contract).items()
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["name"]
]


def text_of(section: str) -> str:
    """A section, by the beginning of its heading."""
    (text,) = [part for part in DOCUMENT.split("\n## ") if part.startswith(section)]
    return text


def block(language: str, section: str) -> str:
    """The first block of a language in a section."""
    return re.findall(rf"```{language}\n(.*?)```", text_of(section), re.DOTALL)[0]


def commands(section: str) -> list[list[str]]:
    """The words of what a section types."""
    return [
        shlex.split(line, comments=True)
        for line in re.findall(r"^ {4}((?:cpt|snakemake) .*)", text_of(section), re.MULTILINE)
    ]


@pytest.fixture
def anchored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "anchored.py").write_text(block("python", "A method"))
    monkeypatch.setattr(cpt.methods, "__path__", [*cpt.methods.__path__, str(tmp_path)])
    registry.names.cache_clear()
    yield
    registry.names.cache_clear()
    sys.modules.pop("cpt.methods.anchored", None)


@pytest.mark.usefixtures("anchored")
def test_a_method_in_one_file() -> None:
    assert "anchored" in registry.names()
    toy, coop = Toy("anchored").shaken(), Toy("coop").shaken()
    found, plain = (t.step(t.batch()).losses for t in (toy, coop))
    assert found["cross_entropy"].item() == plain["cross_entropy"].item()
    text = toy.method.text_features(toy.classes).detach()
    distance = np.mean([float(abs(a - b).sum()) for a, b in zip(text, toy.classes.frozen_unit, strict=True)])
    assert toy.method.total(found).item() == pytest.approx(plain["cross_entropy"].item() + 0.1 * distance, rel=1e-4)


@pytest.mark.usefixtures("anchored")
@pytest.mark.parametrize("test", CONTRACT, ids=lambda test: test.__name__)
def test_the_contract_holds_for_it(test: Callable[[str], None]) -> None:
    test("anchored")


@pytest.mark.usefixtures("anchored")
@pytest.mark.parametrize(
    ("section", "name", "rows", "rates"),
    [
        ("A method", "anchored", ["coop", "anchored"], [0.06]),
        ("One setting", "slow", ["coop"], [0.01, 0.06]),
    ],
)
def test_the_experiment_compares_alike(
    tmp_path: Path, section: str, name: str, rows: list[str], rates: list[float]
) -> None:
    """The rows differ in what the page says, and in nothing else."""
    path = tmp_path / f"{name}.yaml"
    path.write_text(block("yaml", section))
    experiment = load([path])
    grid = build(experiment, path.name)
    assert list(grid.exhibits) == ["table2"]
    runs = list(grid.runs.values())
    assert {run.method for run in runs} == set(rows)
    assert sorted({run.hyperparameters.learning_rate for run in runs}) == rates
    assert {run.hyperparameters.epochs for run in runs} == {12}
    assert len(runs) == 2 * 4 * 2 * 2, "rows, datasets, ratios, seeds"
    train, compare = commands(section)[:2]
    assert train == ["snakemake", "--cores", "2", "--configfile", path.name]
    assert compare[:2] + compare[4:] == ["cpt", "compare", "--results", f"results/{experiment.experiment}"]
    assert set(compare[2:4]) == set(experiment.exhibits["table2"].variants)


@pytest.mark.slow
def test_a_method_is_compared_as_the_page_says(tmp_path: Path, root: Path) -> None:
    """Its commands as they stand, on a smaller default experiment."""
    folder = tmp_path / "project"
    copy_project(folder, root)
    shutil.copytree(PACKAGE, folder / "cpt", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "config/config.yaml").rename(folder / "config/default.yaml")
    small = {
        "extends": "config/default.yaml",
        "seeds": [1],
        "tasks": {"base_to_new": {"datasets": ["land", "flowers"]}},
    }
    (folder / "config/config.yaml").write_text(yaml.safe_dump(small))
    (folder / "cpt/methods/anchored.py").write_text(block("python", "A method"))
    (folder / "anchored.yaml").write_text(block("yaml", "A method"))
    train, compare = commands("A method")
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-m", *train], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = cpt_of(folder, *compare[1:])
    assert "A: coop in results/anchored" in said
    assert "B: anchored in results/anchored" in said
    assert re.search(r"^ +1  H +\d", said, re.MULTILINE)


def test_all_of_the_contract_is_in_the_list() -> None:
    assert len(CONTRACT) > 15
    assert contract.test_loss_falls in CONTRACT


def test_what_a_method_may_set_and_use_exists() -> None:
    """Attributes and functions that the page names are those of the base."""
    table = DOCUMENT[DOCUMENT.index("| it needs") : DOCUMENT.index("## A dataset")]
    flags = set(re.findall(r"`(\w+) = ", table))
    values = {name: value for name, value in vars(Method).items() if name[0] != "_"}
    declared = {name for name, value in values.items() if isinstance(value, bool | int | tuple | None)}
    assert flags == declared - {"trains", "reconstruction", "control"} | {"schedule"}
    assert hasattr(TrainingHyperparameters, "schedule")
    hooks = {"class_logits", "batch_features", "draw", "frozen_features", "target", "begin", "step_end",
             "epoch_end", "finish", "training_state", "load_training_state"}  # fmt: skip
    assert all(re.search(rf"`(self\.)?{hook}[(`]", table) for hook in hooks)
    assert all(callable(getattr(Method, hook)) for hook in hooks)


def test_a_dataset_in_one_entry(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for part, count in (("train", 5), ("test", 2)):
        for name in ("house_finch", "great tit", "robin"):
            folder = tmp_path / "birds" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    entry = yaml.safe_load(block("yaml", "A dataset"))
    entry["birds"]["root"] = str(tmp_path / "birds")
    catalog = tmp_path / "datasets.yaml"
    catalog.write_text(yaml.safe_dump(entry))
    manifest = read_manifest(make_manifest(load_catalog(catalog)["birds"], tmp_path / "out"))
    assert manifest.class_names == ["great tit", "house finch", "robin"]
    table, metadata = make_split(
        manifest, protocol="base_to_new", imbalance_ratio=0.25, n_max=4, seed=1, class_order="label"
    )
    assert metadata["classes"] == ["great tit", "house finch"]
    assert table["label"].to_pylist() == [0, 0, 0, 0, 1]


FIGURE, LAYOUT, ALGORITHM = "A figure", "A layout of tables", "A clustering algorithm"
FORMAT = "A format of tables"


def cpt_of(folder: Path, *words: str) -> str:
    """Call the command line of the package in a folder; return what it says."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "cpt", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the page's kind of figure, layout and algorithm, and an experiment that uses them.

    Its runs are invented: every run of CPT is better by 10 than one of another method, seed 2 by 2 than seed 1.
    """
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, folder / "cpt", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    (folder / "cpt/assets").symlink_to(PACKAGE / "assets")
    (folder / "config").symlink_to(Path("config").absolute())
    (folder / "cpt/report/figures/tradeoff.py").write_text(block("python", FIGURE))
    (folder / "cpt/report/layouts/halves.py").write_text(block("python", LAYOUT))
    (folder / "cpt/report/formats/tsv.py").write_text(block("python", FORMAT))
    with open(folder / "cpt/features/clusters.py", "a") as file:
        file.write("\n\n" + block("python", ALGORITHM))

    shown = yaml.safe_load(block("yaml", FIGURE)) | yaml.safe_load(block("yaml", LAYOUT))
    kept = yaml.safe_load(Path("config/config.yaml").read_text())["exhibits"].keys() - shown.keys()
    shown["figure9"] |= {"variants": ["shuffled", "cpt"]}
    experiment = {
        "extends": "config/config.yaml",
        "experiment": "mine",
        "variants": {"shuffled": {"method": "cpt", "label": "Shuffled", "set": {"clustering": "shuffled"}}},
        "tasks": {"base_to_new": {"datasets": ["land", "flowers"]}},
        "exhibits": dict.fromkeys(kept) | shown,
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(experiment))
    assert "for figure9, table8" in cpt_of(folder, "grid", "mine.yaml", "--output", "results/grid.json")

    runs = []
    for run in parse_json((folder / "results/grid.json").read_text())["runs"]:
        base = 50.0 + 10 * (run["method"] == "cpt") + 2 * run["seed"]
        for subset, metric, number in (("base", "accuracy", base), ("new", "accuracy", base - 5),
                                       ("base+new", "harmonic_mean", base - 2)):  # fmt: skip
            where = {"run": run["run"], "target": run["dataset"], "subset": subset, "metric": metric}
            runs.append({**where, "epoch": None, "value": number})
    write_parquet(folder / "results/runs.parquet", pa.Table.from_pylist(runs), RUNS, experiment="mine")
    return folder


def test_a_kind_of_figure_in_one_file(copied: Path) -> None:
    cpt_of(copied, "figure", "figure9", "--results", "results")
    with open(copied / "results/figures/figure9.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["method", "imbalance_ratio", "base", "new"],
            *([name, ratio, "63.0", "58.0"] for name in ("Shuffled", "CPT") for ratio in ("1", "0.06")),
        ]
    caption = (copied / "results/figures/figure9.txt").read_text()
    assert caption == "Figure 9. Base against new. τ = 1, 0.06. Means over datasets and seeds; no error bars.\n"
    cpt_of(copied, "schema", "--output", "schema.json")
    described = parse_json((copied / "schema.json").read_text())["$defs"]["Tradeoff"]
    assert described["description"] == "Base against new accuracy."


def test_a_layout_of_tables_in_one_file(copied: Path) -> None:
    cpt_of(copied, "table", "table8", "--results", "results")
    written = {path.suffix[1:] for path in (copied / "results/tables").glob("table8.*")}
    assert written == {*table_suffixes(), "tsv", "json"}
    shown = (copied / "results/tables/table8.md").read_text()
    assert "| Method | base | new | H |" in shown
    assert "| CPT | **63.00** <sub>±1.41</sub> | **58.00** <sub>±1.41</sub> | **61.00** <sub>±1.41</sub> |" in shown
    assert "Avg: mean over 2 datasets of the per-dataset H." in shown


def test_a_format_of_tables_in_one_file(copied: Path) -> None:
    cpt_of(copied, "table", "table8", "--results", "results")
    lines = (copied / "results/tables/table8.tsv").read_text().splitlines()
    assert lines[0] == "Method\tbase\tnew\tH"
    assert "CPT\t63.00\t58.00\t61.00" in lines
    code = (
        "from pathlib import Path; from cpt.experiment import config, resolved, stages\n"
        "found = config.load([Path('mine.yaml')])\n"
        "shape = stages.Stages(found, resolved.load(found, 'mine.yaml', Path('work.json')), ['mine.yaml'])\n"
        "print([path for path in shape.tables if 'tsv' in path], 'cpt.report.formats.tsv' in shape.code('table'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=copied, check=True)
    assert done.stdout.split() == ["['results/mine/tables/table8.tsv']", "True"]


def test_a_clustering_algorithm_in_one_object(copied: Path, results: Path) -> None:
    runs = parse_json((copied / "results/grid.json").read_text())["runs"]
    assert any("/shuffled-per4-single/" in (run["clusters"] or "") for run in runs)
    text = results / "features/land/text-single.safetensors"
    given = ["--text-features", str(text), "--protocol", "all_classes", "--seed", "1", "--classes-per-cluster", "2"]
    cpt_of(copied, "clusters", *given, "--algorithm", "shuffled", "--output", "shuffled.parquet")
    table, metadata = read_parquet(copied / "shuffled.parquet", "cpt.clusters/1")
    assert np.bincount(table["cluster"].to_numpy()).tolist() == [2] * 5
    assert metadata["algorithm"] == "shuffled"


def test_the_tutorials_experiments(tmp_path: Path) -> None:
    """Its entries and its configurations, also the one on the tiny CLIP, resolve to the runs of their tables."""
    whole, cut, listed, pets, own, everything, both = (
        yaml.safe_load(text)
        for text in re.findall(r"```yaml\n(.*?)```", Path("docs/tutorial.md").read_text(), re.DOTALL)
    )
    assert cut == {"pets": whole["pets"] | {"derived_split": True}}
    assert listed == {"pets": whole["pets"] | {"layout": "csv", "split": "labels.csv"}}
    catalog = tmp_path / "datasets.yaml"
    (tmp_path / "classes").symlink_to(Path("config/classes").absolute())
    pets |= {"extends": str(Path(pets["extends"]).absolute()), "catalog": str(catalog)}
    below = tmp_path / "pets.yaml"
    below.write_text(yaml.safe_dump(pets))
    for entry in (whole, cut, listed):
        catalog.write_text(yaml.safe_dump(yaml.safe_load(Path("config/datasets.yaml").read_text()) | entry))
        for experiment, exhibits, protocols, ratio in (
            (pets, ["table2"], ["base_to_new"], 0.06),
            (pets | {"extends": "config/config.yaml", "only": ["table2"]}, ["table2"], ["base_to_new"], 0.06),
            (own | {"extends": str(below)}, ["table2", "table3"], ["base_to_new"], "natural"),
            (everything | {"extends": str(below)}, ["table2"], ["few_shot"], 0.06),
            (both | {"extends": str(below)}, ["table2", "all_classes"], ["base_to_new", "few_shot"], 0.06),
        ):
            mine = tmp_path / "mine.yaml"
            mine.write_text(yaml.safe_dump(experiment))
            config = load([mine])
            grid = build(config, "mine.yaml")
            assert list(grid.exhibits) == exhibits
            runs = [
                (run.method, run.dataset, run.protocol, run.ratio, run.seed)
                for run in grid.runs.values()
                if run.method != "zeroshot"
            ]
            rows = itertools.product(("coop", "cpt", "ivlp"), ["pets"], protocols, [ratio], (1, 2, 3))
            assert sorted(runs) == list(rows)
            assert {run.dataset for run in grid.runs.values()} == {"pets"}
