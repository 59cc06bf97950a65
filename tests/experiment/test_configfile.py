"""Configuration files as Snakemake gets them: ours is the only reader that counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.workflow import ONLY_TABLE_2, copy_project, planned, snakemake

MINE: dict[str, Any] = {"extends": "config/config.yaml", "experiment": "mine", "seeds": [1], **ONLY_TABLE_2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    copy_project(made := tmp_path_factory.mktemp("configfile") / "project", root)
    return made


def refused(folder: Path, *words: str) -> str:
    """What Snakemake is stopped by; one line of ours behind its own greeting."""
    done = snakemake(folder, "-n", *words, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("cpt: ")]
    return line


def test_json_with_rules_of_its_own(folder: Path) -> None:
    """Small numbers are no texts; what is replaced and left out is told once."""
    values = MINE | {"overrides": [{"set": {"weight_decay": 1e-5, "epochs": 1}}], "variants": {"coop": None}}
    (folder / "mine.json").write_text(json.dumps(values, indent="\t"))
    done = snakemake(folder, "-n", "-q", "rules", "--configfile", "mine.json")
    notices = [line for line in done.stderr.splitlines() if line.startswith("cpt: notice: ")]
    assert len(notices) == 2
    assert notices[0].startswith("cpt: notice: mine.json: overrides replace what config/config.yaml sets: epochs of ")
    assert notices[1] == "cpt: notice: mine.json: left out, because it no longer fits: row coop of table2, table2b"


def test_all_problems_at_once(folder: Path) -> None:
    (folder / "bad.yaml").write_text(yaml.safe_dump(MINE | {"seeds": ["x"], "n_max": 0}))
    done = snakemake(folder, "-n", "--configfile", "bad.yaml", check=False)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("cpt: ")] == [
        "cpt: error: bad.yaml: seeds.0: 'x': must be a whole number",
        "cpt: error: bad.yaml: n_max: 0: must be at least 1",
    ]


def test_keys_that_stand_twice(folder: Path) -> None:
    (folder / "twice.yaml").write_text("extends: config/config.yaml\nseeds: [1]\nexperiment: x\nseeds: [2]\n")
    assert refused(folder, "--configfile", "twice.yaml") == (
        "cpt: error: twice.yaml: line 4: 'seeds' stands in line 2 too; delete one"
    )


def test_changes_on_the_command_line(folder: Path) -> None:
    (folder / "mine.yaml").write_text(yaml.safe_dump(MINE))
    for words in (["--configfile", "mine.yaml"], []):
        line = refused(folder, *words, "--config", "n_max=8")
        assert line.startswith("cpt: error: --config is not supported; put the changes into a file")


def test_a_table_that_is_asked_for_trains_only_what_it_shows(folder: Path) -> None:
    values = MINE | {"exhibits": {}, "only": ["table2", "figure4"], "tasks": {"base_to_new": {"datasets": ["flowers"]}}}
    (folder / "two.yaml").write_text(yaml.safe_dump(values | {"exhibits": {"table2": {"variants": ["coop", "ivlp"]}}}))
    whole = planned(folder, "--configfile", "two.yaml")
    table = planned(folder, "results/mine/tables/table2.csv", "--configfile", "two.yaml")
    assert table["train"] == table["score"] == 4  # two methods, two ratios
    assert whole["train"] > table["train"]
    assert {rule: table[rule] for rule in ("part", "table")} == {"part": 1, "table": 1}
    assert table.keys().isdisjoint({"aggregate", "page", "figure"})
    both = planned(
        folder, "results/mine/tables/table2.md", "results/mine/figures/figure4.svg", "--configfile", "two.yaml"
    )
    assert both["train"] == whole["train"]
    with_another = planned(folder, "results/mine/tables/table2.csv", "tables", "--configfile", "two.yaml")
    assert with_another["train"] == whole["train"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/other/tables/table2.csv", "mine is another experiment; give its configuration with --configfile"),
        ("results/mine/tables/tabel2.csv", "mine makes no such file; did you mean results/mine/tables/table2.csv?"),
    ],
)
def test_targets_that_there_are_none_of(folder: Path, target: str, message: str) -> None:
    (folder / "mine.yaml").write_text(yaml.safe_dump(MINE))
    assert refused(folder, target, "--configfile", "mine.yaml") == f"cpt: error: {target}: {message}"


def test_the_target_of_another_experiment_comes_with_the_command_that_makes_it(folder: Path) -> None:
    (folder / "mine.yaml").write_text(yaml.safe_dump(MINE))
    (folder / "results/mine").mkdir(parents=True)
    snakemake(folder, "-n", "-q", "rules", "--configfile", "mine.yaml")
    line = refused(folder, "results/mine/tables/table2.csv")
    *words, configured = line.split("`")[1].split()
    assert configured == "mine.yaml"
    assert snakemake(folder, "-n", *words[1:], configured).returncode == 0


def test_another_folder(folder: Path, tmp_path: Path) -> None:
    done = snakemake(tmp_path, "-n", "-s", str(folder / "Snakefile"), check=False)
    assert done.stderr.splitlines()[-1].endswith("no such configuration file; run snakemake in the project's folder")
