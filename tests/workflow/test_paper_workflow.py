"""The paper's grid through Snakemake on miniatures of all 15 datasets: download to tables, on a CLIP of random weights.

The numbers mean nothing; shapes, labels and files are the real ones.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cpt.experiment.config import load
from cpt.experiment.resolved import load as load_resolved
from cpt.experiment.stages import Stages
from cpt.files.stage_files import read_json, read_parquet
from cpt.workflow.status import status
from tests.helpers.miniature import Miniatures, picture
from tests.helpers.servers import Mishap, Server
from tests.helpers.workflow import copy_project, planned, snakemake

SMALL_CLIP = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 12, "width": 48, "head_width": 24, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 12},
}
"""ViT-B/16 with its twelve blocks and its tokenizer, but narrow, on images of 32 pixels."""
ROWS = ["zeroshot", "coop", "ivlp", "cpt"]
MINI = {
    "extends": "config/paper.yaml",
    "experiment": "mini",
    "printed": False,
    "backbone": {"name": "mini", "architecture": "mini.json", "pretrained": "random"},
    "catalog": "datasets.yaml",
    "seeds": [1],
    "imbalance_ratios": [0.25],
    "precision": "float32",
    "device": "cpu",
    "threads": 1,
    "overrides": [{"set": {"epochs": 1, "batch_size": 32}}, {"datasets": ["imagenet"], "set": {"batch_size": 500}}, {"methods": ["cpt"], "set": {"templates": "single"}}],
    "exhibits": {
        "table1": {"ratios": None, "datasets": ["dtd", "eurosat", "oxford_pets", "imagenetv2", "imagenet_a"]},
        "table2": {"variants": ROWS},
        "table2b": {"variants": ROWS},
        "table3": {"variants": ROWS},
        "table4": {"variants": ROWS},
        "table5": {"ratios": None, "seeds": None},
        "figure1": {"ratios": None, "stability": {"epochs": 1, "seeds": [1]}},
        "figure2": {"ratios": None},
        "figure3": {"ratios": None, "datasets": ["eurosat"], "sweep": {"tetf_weight": [0, 0.25], "cc_weight": None, "rs_weight": None}},
        "figure4": {"ratios": None, "seeds": None},
        "figure5": {"ratios": None, "seeds": None, "datasets": ["eurosat"], "sweep": {"classes_per_cluster": [2, 4]}},
        "table6": {"variants": ROWS},
        "table7": {"variants": ROWS},
        "figure6": {"ratios": None, "datasets": ["eurosat"]},
        "figure7": {"ratios": None, "variants": ["zeroshot", "ivlp", "cpt"]},
        "figure8": {"ratios": None, "variants": ROWS},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("paper") / "clone"
    copy_project(folder, root)
    (folder / "mini.json").write_text(json.dumps(SMALL_CLIP))
    (folder / "mini.yaml").write_text(yaml.safe_dump(MINI))
    with Server() as server:
        miniatures = Miniatures(folder / "data", server.root)
        for path, content in miniatures.served.items():
            mishaps = [Mishap(drop_after=1000)] if path.startswith(("/dtd/0", "/sun397/1")) else []
            server.add(path, content, *mishaps)
        miniatures.write_catalog(folder / "datasets.yaml")
        snakemake(folder, "--configfile", "mini.yaml")
        yield folder


@pytest.mark.slow
def test_every_dataset_arrives_and_is_checked(mini: Path) -> None:
    results = mini / "results/mini"
    for name, entry in yaml.safe_load((mini / "datasets.yaml").read_text()).items():
        origin = json.loads((results / f"data/{name}/fetched.json").read_text())
        urls = [file["url"] for file in origin["files"].values()]
        assert all(url.startswith("http://127.0.0.1") for url in urls), name
        assert bool(urls) == ("gated" not in entry), name
        _, metadata = read_parquet(results / f"data/{name}/manifest.parquet", "cpt.manifest/2")
        assert metadata["derived"] is False
        record = read_json(results / f"data/{name}/pixels-test.json", "cpt.pixels/2")
        assert record["count"] == entry["expected"]["images"]["test"]
    assert planned(mini, "--configfile", "mini.yaml") == {}


@pytest.mark.slow
def test_every_job_has_its_log_where_status_looks(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mini)
    config = load([Path("mini.yaml")])
    stages = Stages(config, load_resolved(config, "", Path("work/mini/workflow.json")))
    shared = {rule: made for rule, made in stages.jobs.items() if rule not in ("train", "predict", "score", "all")}
    assert {"fetch", "pixels", "clusters", "page"} <= shared.keys()
    for rule, made in shared.items():
        for output in made:
            assert Path(stages.log_of(rule, output)).is_file(), rule
    found = status(config, "")
    assert (found.failures, found.running, found.finished) == ([], [], True)


@pytest.mark.slow
def test_the_tables_are_those_of_the_paper(mini: Path) -> None:
    """Rows and columns of Tables 2-5 are the printed ones, where both have the row; every cell has a number."""
    with open(mini / "config/published.csv", encoding="utf-8") as file:
        printed = list(csv.DictReader(file))
    titles = {name: entry["title"] for name, entry in yaml.safe_load((mini / "datasets.yaml").read_text()).items()}
    rows = {}
    for name in ("table1", "table2", "table3", "table4", "table5"):
        with open(mini / f"results/mini/tables/{name}.csv", encoding="utf-8") as file:
            rows[name] = list(csv.DictReader(file))
        assert all(row["n_seeds"] == "1" and 0 <= float(row["value"]) <= 100 for row in rows[name]), name
    for name in ("table2", "table3", "table4"):
        columns = {row["dataset"] for row in printed if row["group"] == name}
        assert {titles.get(row["dataset"], row["dataset"]) for row in rows[name]} == columns, name
        assert len({row["method"] for row in rows[name]}) == len(ROWS)
    assert {row["dataset"] for row in rows["table1"]} == {"base-to-new", "cross-dataset", "domain-generalization"}
    assert len({row["method"] for row in rows["table5"]}) == 4
    for task in ("base-to-new", "cross-dataset", "domain-generalization"):
        assert len({row["method"] for row in rows["table1"] if row["dataset"] == task}) == 6


@pytest.mark.slow
def test_the_page_says_that_the_numbers_mean_nothing(mini: Path) -> None:
    page = (mini / "results/mini/report/index.html").read_text(encoding="utf-8")
    assert "random weights: the numbers mean nothing" in page


@pytest.mark.slow
def test_ones_own_dataset_and_what_changes_in_it(mini: Path) -> None:
    """Docs, adding.md: one entry; a further image makes everything that depends on it anew.

    Beside it a dataset that another experiment has fetched, for which the server is asked for nothing.
    """
    for part, count in (("train", 2), ("test", 1)):
        for number, name in enumerate(("finch", "robin", "tit")):
            folder = mini / "birds" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.jpg").write_bytes(picture(900_000 + 10 * number + i))
    catalog = yaml.safe_load((mini / "datasets.yaml").read_text())
    catalog["birds"] = {"title": "Birds", "layout": "folders", "root": "birds"}
    (mini / "birds.yaml").write_text(yaml.safe_dump(catalog))
    exhibits = {name: None for name in MINI["exhibits"] if name != "table2"} | {
        "table2": {"variants": ["zeroshot", "coop"]}
    }
    tasks = {"base_to_new": {"datasets": ["birds", "eurosat"]}, "cross_dataset": None, "domain_generalization": None}
    own = MINI | {"experiment": "own", "catalog": "birds.yaml", "tasks": tasks, "exhibits": exhibits}
    (mini / "own.yaml").write_text(yaml.safe_dump(own))
    snakemake(mini, "--configfile", "own.yaml")
    assert planned(mini, "--configfile", "own.yaml") == {}
    (mini / "birds/test/robin/1.jpg").write_bytes(picture(900_500))
    jobs = planned(mini, "--configfile", "own.yaml")
    assert {"data", "split", "train", "predict", "table"} <= set(jobs)
    assert (jobs["data"], jobs["split"]) == (1, 2), "birds only; zero-shot CLIP has a split of its own"
    assert "fetch" not in jobs
    snakemake(mini, "--configfile", "own.yaml")
    table, _ = read_parquet(mini / "results/own/data/birds/manifest.parquet", "cpt.manifest/2")
    assert len(table) == 10
    origin, first = (
        json.loads((mini / f"results/{name}/data/eurosat/fetched.json").read_text()) for name in ("own", "mini")
    )
    assert origin["files"] == first["files"]
    ours, theirs = (mini / f"results/{name}/data/eurosat/manifest.parquet" for name in ("mini", "own"))
    assert ours.read_bytes() == theirs.read_bytes()
