"""From nothing to a comparison over models: pretraining, experiments on rebuilt tiny CLIPs, ``cpt across``, docs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from cpt.clip import pretrain
from cpt.experiment import config, grid
from cpt.files.stage_files import read_parquet, write_parquet
from docs import kept, measured
from tests.helpers.command import here
from tests.helpers.workflow import copy_project, planned, snakemake

MODELS = [f"{world}-s{seed}" for world in ("first", "second") for seed in (0, 1, 2)]


def test_the_experiments_differ_in_model_and_datasets_only(root: Path) -> None:
    """Six models of two worlds, whose datasets share nothing; their rows, seeds and ratios are one base file's."""
    made = {name: config.load([root / path]) for name, path in kept.WORLDS.items()}
    assert [each.experiment for each in made.values()] == list(made)
    assert [each.backbone.name for each in made.values()] == MODELS
    assert {each.backbone.pretrained for each in made.values()} == {
        "shipped", *(f"work/tiny_clip/{name}" for name in MODELS[1:])
    }  # fmt: skip
    own = [each.model_dump(exclude={"experiment", "backbone", "tasks"}) for each in made.values()]
    assert all(each == own[0] for each in own)
    datasets = [tuple(each.tasks.base_to_new.datasets) for each in made.values()]
    assert datasets[:3] == datasets[:1] * 3
    assert datasets[3:] == datasets[3:4] * 3
    assert not set(datasets[0]) & set(datasets[3])


def test_make_worlds_makes_what_the_configurations_name(root: Path) -> None:
    text = (root / "Makefile").read_text()
    named = re.search(r"^MODELS := (.*)$", text, re.MULTILINE)[1].split()
    assert named == MODELS[1:], "the shipped one is not rebuilt"


def test_what_was_not_measured_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "KEPT", tmp_path)
    assert measured.worlds() == "\n**Not measured yet: of the 6 experiments, 6 have no kept results.**\n"


def test_the_table_of_the_documents_is_that_of_kept_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results invented on the shipped grids: logit adjustment adds 1, 2 and 3 points in the three models of a world."""
    for name, path in kept.WORLDS.items():
        resolved = grid.build(config.load([kept.ROOT / path]), path)
        extra = 1 + int(name[-1])
        rows = []
        for run in resolved.runs.values():
            added = extra * (getattr(run.hyperparameters, "prior", "") == "logit_adjustment") * (run.method == "cpt")
            facts = {"run": run.id, "target": run.dataset, "seed": run.seed, "epoch": None}
            for subset, metric in (("base+new", "harmonic_mean"), ("base", "accuracy"), ("new", "accuracy")):
                rows.append(facts | {"subset": subset, "metric": metric, "value": 50.0 + added})
        table, _ = read_parquet(kept.KEPT / "embedded.parquet", kept_schema())
        invented = table.from_pylist([dict.fromkeys(table.column_names) | row for row in rows], schema=table.schema)
        write_parquet(tmp_path / f"{name}.parquet", invented, kept_schema(), experiment=name)
    monkeypatch.setattr(measured, "KEPT", tmp_path)
    monkeypatch.setattr(measured, "kept", lambda name: kept.read(name, tmp_path / f"{name}.parquet"))
    text = measured.worlds()
    line = next(line for line in text.splitlines() if line.startswith("| CPT + logit adjustment"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:5] == ["CPT + logit adjustment", "52.00", "+2.00", "+2.00 … +2.00", "12 of 12"]
    assert cells[-2:] == ["+1.00 … +3.00", "6 of 6"]
    assert "the 12 datasets of 2 worlds" in text
    assert "first-s0, first-s1, first-s2: " in text


def kept_schema() -> str:
    from cpt.files.paths import RUNS

    return RUNS


@pytest.mark.slow
def test_from_pretraining_to_the_comparison(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two barely trained models of the second world: base-to-new, cross-dataset and shifts, verified, then compared."""
    project = tmp_path / "project"
    copy_project(project, root)
    monkeypatch.setattr(pretrain, "TEST_IMAGES", 1)
    for seed in (0, 1):
        pretrain.pretrain(project / f"work/tiny_clip/second-s{seed}", world="second", seed=seed, pairs=130, steps=2,
                          log=lambda line: None)  # fmt: skip
    few = ["zeroshot", "ivlp", "cpt"]
    small = {
        "extends": "config/worlds/second_s0.yaml",
        "seeds": [1],
        "tasks": {"base_to_new": {"datasets": ["surfaces"]}},
        "overrides": [{"methods": ["ivlp", "cpt"], "set": {"epochs": 1}}],
        "exhibits": {"table2": {"variants": few}, "table2b": {"variants": few}},
    }
    transfer = {
        "cross_dataset": {"source": "surfaces", "targets": ["trees"]},
        "domain_generalization": {"source": "market", "targets": ["market_r"]},
    }
    table4 = {"kind": "table", "layout": "tasks", "tasks": list(transfer), "variants": ["zeroshot"]}
    for seed in (0, 1):
        backbone = {"name": f"second-s{seed}", "pretrained": f"work/tiny_clip/second-s{seed}"}
        own = small | {"experiment": f"small_s{seed}", "backbone": backbone}
        if seed == 0:
            own |= {"tasks": small["tasks"] | transfer, "exhibits": small["exhibits"] | {"table4": table4}}
        (project / f"s{seed}.yaml").write_text(yaml.safe_dump(own))
        snakemake(project, "--configfile", f"s{seed}.yaml")
    assert json.loads((project / "results/small_s1/backbone.json").read_text())["source"]["seed"] == 1
    assert planned(project, "--configfile", "s1.yaml") == {}, "nothing is left to do"
    shutil.rmtree(project / "work/tiny_clip")
    assert here("verify", "results/small_s1", cwd=project).returncode == 0, "results need the model's folder no more"
    done = here("across", "results/small_s0", "results/small_s1", "--format", "json", cwd=project)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    compared = {(row["task"], row["metric"], row["row"]) for row in rows}
    assert compared == {("base_to_new", metric, row) for metric in ("H", "base", "new") for row in few[:2]}
    assert all((row["models"], row["datasets"]) == (2, 1) for row in rows)
    missing = here("plan", "s0.yaml", cwd=project)
    assert "make it with `cpt pretrain --world second --seed 0 --output work/tiny_clip/second-s0`" in missing.stderr
