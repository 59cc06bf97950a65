"""Control rows: what they predict, from training to scores, and that nothing ranks or tests them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from cpt.errors import CptError
from cpt.evaluation.predict import predict
from cpt.evaluation.score import score
from cpt.experiment import config, grid
from cpt.methods.base import registry
from cpt.report.figures.cost import Point, undominated
from cpt.report.layout import CONTROLS
from cpt.report.page.first_screen import headlines
from cpt.report.tables import make_table, significance
from cpt.results.cells import read_results, row_names
from cpt.training.train import train
from tests.helpers import fake_results
from tests.helpers.contract import CLASSES, OTHERS, Toy, classes, images
from tests.helpers.experiment import linked, train_inputs

SHOWN = images(range(6), view=9)
CHANCE = 20.0
"""Percent, of five classes with equally many test images."""


@pytest.fixture(scope="module")
def root(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linked(results, tmp_path_factory.mktemp("controls"))


def accuracies(
    results: Path, root: Path, method: str, ratio: str = "r1", seed: int = 1, **own: Any
) -> dict[str, float]:
    """Accuracy on the base and on the new classes of a run from training to scores."""
    run = root / f"runs/{method}-{ratio}-{seed}"
    inputs = train_inputs(
        results, method, ratio, seed=seed, image_features=results / "features/land/images-train.safetensors"
    )
    if not registry.get(method).trains:
        inputs.hyperparameters.clear()
    inputs.hyperparameters.update({"templates": "single"} | own)
    train(inputs, run, lambda _: None)
    predict(run, root, [("land", "base"), ("land", "new")], device="cpu", log=lambda _: None)
    rows = score(run, inputs.split).to_pylist()
    return {row["subset"]: row["value"] for row in rows if row["metric"] == "accuracy"}


def test_shuffled_labels_are_at_chance_and_true_ones_are_not(results: Path, root: Path) -> None:
    own = {"epochs": 20, "learning_rate": 0.1}
    runs = [accuracies(results, root, "shuffled_labels", seed=seed, **own) for seed in range(1, 9)]
    for half in ("base", "new"):
        assert statistics.fmean(run[half] for run in runs) == pytest.approx(CHANCE, abs=8), half
    assert runs[0] == accuracies(results, root, "shuffled_labels", seed=1, **own), "the seed decides all"
    assert len({tuple(run.values()) for run in runs}) > 1
    learned = accuracies(results, root, "zs_lp", **own)
    assert learned["base"] > 3 * CHANCE, "the same probe on the labels of its images"


@pytest.mark.parametrize("ratio", ["r1", "r0.25"])
def test_the_prior_alone_is_at_chance(results: Path, root: Path, ratio: str) -> None:
    assert accuracies(results, root, "prior_only", ratio) == {"base": CHANCE, "new": CHANCE}


def test_the_prior_is_that_of_the_training_images() -> None:
    """Trained classes have their shares, others that of an average class; the first of several is the best."""
    toy = Toy("prior_only", counts=[8, 4, 4, 2, 2])
    shares = toy.scores(SHOWN).exp()
    assert torch.allclose(shares, torch.tensor([0.4, 0.2, 0.2, 0.1, 0.1]).expand(6, -1), atol=1e-4)
    assert toy.scores(SHOWN)[0].diff().max() < 0
    mixed = toy.scores(SHOWN, classes((OTHERS[0], CLASSES[1], OTHERS[1])), trained=False)[0].exp()
    assert torch.allclose(mixed, torch.tensor([0.2, 0.2, 0.2]), atol=1e-4)
    new = toy.scores(SHOWN, classes(OTHERS[:4]), trained=False).softmax(dim=1)
    assert torch.allclose(new, torch.full((6, 4), 0.25), atol=1e-4)
    assert (new.argmax(dim=1) == 0).all()


def test_random_prompts_are_not_trained(results: Path, root: Path) -> None:
    found = accuracies(results, root, "ivlp", epochs=0, words=False)
    record = json.loads((root / "runs/ivlp-r1-1/run.json").read_text())
    assert record["steps"] == 0
    assert found.keys() == {"base", "new"}


# ---- in the grid -----------------------------------------------------------------------------------


def built(**changes: Any) -> grid.Grid:
    values = {
        "extends": "config/config.yaml",
        "tasks": {"base_to_new": {"datasets": ["land"]}},
        "only": ["table2"],
        "exhibits": {"table2": {"variants": ["cpt", "prior_only", "random_prompts", "shuffled_labels", "ceiling"]}},
    }
    return grid.build(config.parse(values | changes, "x.yaml"), "x.yaml")


def test_rows_say_what_they_are() -> None:
    rows = {row["id"]: row for row in built().exhibits["table2"]["rows"]}
    assert rows["cpt"] == {"id": "cpt", "label": "CPT", "note": None, "family": "prompts"}
    assert {row["family"] for row in rows.values()} == {"prompts", "controls"}
    assert all(row["control"] and row["note"].endswith("control") for name, row in rows.items() if name != "cpt")
    ceiling = "ZS-LP on all training images, trained at τ = natural, control"
    assert (rows["ceiling"]["label"], rows["ceiling"]["note"]) == ("Ceiling", ceiling)
    assert row_names(rows.values())["prior_only"] == "Prior only (no image is looked at, control)"


def test_the_ceiling_has_all_training_images_at_every_ratio() -> None:
    made = built()
    cells = [cell for cell in made.exhibits["table2"]["cells"] if cell["row"] == "ceiling"]
    assert [cell["ratio"] for cell in cells] == [1.0, 0.06]
    assert cells[0]["runs"] == cells[1]["runs"]
    runs = [made.runs[name] for name in cells[0]["runs"]]
    assert [(run.method, run.ratio, run.seed) for run in runs] == [("zs_lp", "natural", 1), ("zs_lp", "natural", 2)]
    prior = {(run.ratio, run.seed) for run in made.runs.values() if run.method == "prior_only"}
    assert prior == {(1.0, 1), (1.0, 2), (0.06, 1), (0.06, 2)}, "it depends on the training set"


def test_a_control_is_no_reference() -> None:
    table = {"variants": ["ivlp", "ceiling"], "reference": "ceiling"}
    with pytest.raises(CptError, match=r"x\.yaml: exhibits\.table2\.reference: 'ceiling' is a control.*name another"):
        built(exhibits={"table2": table})


# ---- in tables, figures and on the page ------------------------------------------------------------


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The invented results, in which NPT is a control: CPT has the highest averages, then come NPT and IVLP."""
    plain = tmp_path_factory.mktemp("invented")
    fake_results.write_results(plain)
    exhibits = json.loads((plain / "grid.json").read_text())["exhibits"]
    for exhibit in exhibits.values():
        for row in exhibit["rows"]:
            row |= {"note": "control", "control": True} if row["id"] == "npt" else {}
    return fake_results.changed(plain, tmp_path_factory.mktemp("controlled") / "made", exhibits=exhibits)


@pytest.mark.parametrize("table", ["table2", "table2b", "table3", "table6"])
def test_tables_neither_mark_nor_test_it(controlled: Path, tmp_path: Path, table: str) -> None:
    make_table(controlled / "grid.json", controlled / "runs.parquet", table, tmp_path)
    text = (tmp_path / f"{table}.md").read_text()
    marked = [line for line in text.splitlines() if line.startswith("| NPT") and ("**" in line or "<u>" in line)]
    assert not marked
    assert any(line.startswith("| IVLP") and "<u>" in line for line in text.splitlines())
    assert text.count(CONTROLS) == 1
    results = read_results(controlled / "grid.json", controlled / "runs.parquet")
    tested = {row for _, row in significance(results, results.exhibit("table2"))}
    assert tested == {"zeroshot", "ivlp", "cptsum"}


def test_tables_without_controls_say_nothing_of_them(tmp_path: Path) -> None:
    fake_results.write_results(tmp_path)
    make_table(tmp_path / "grid.json", tmp_path / "runs.parquet", "table2", tmp_path)
    text = (tmp_path / "table2.md").read_text()
    assert CONTROLS not in text
    assert "It never counts as 0: an average that lacks a dataset is missing, and is neither ranked nor tested." in text


def test_the_page_does_not_rank_it(controlled: Path) -> None:
    results = read_results(controlled / "grid.json", controlled / "runs.parquet")
    said = " ".join(line for headline in headlines(results) for _, line in headline.lines)
    assert "NPT" not in said
    assert "next: IVLP" in said


def test_it_is_on_no_front() -> None:
    method, control = Point("a", "A", 2, 50, None, 1), Point("b", "B", 1, 90, None, 1, control=True)
    assert undominated([method, control]) == [method]
