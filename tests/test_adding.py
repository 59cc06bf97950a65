"""The worked examples of docs/adding.md, run as they stand."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import cpt.methods
from cpt.data.catalog import load_catalog
from cpt.data.make_manifest import make_manifest
from cpt.data.manifest import read_manifest
from cpt.data.split import make_split
from cpt.experiment.config import load
from cpt.experiment.grid import build
from cpt.methods.base import registry
from cpt.methods.base.method import Method
from tests.helpers.contract import Toy
from tests.methods import test_methods as contract

DOCUMENT = Path("docs/adding.md").read_text()
CONTRACT = [
    test
    for name, test in vars(contract).items()
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["name"]
]


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)[1]


@pytest.fixture
def kgcoop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "kgcoop.py").write_text(block("python"))
    monkeypatch.setattr(cpt.methods, "__path__", [*cpt.methods.__path__, str(tmp_path)])
    registry.names.cache_clear()
    yield
    registry.names.cache_clear()
    sys.modules.pop("cpt.methods.kgcoop", None)


@pytest.mark.usefixtures("kgcoop")
def test_a_method_in_one_file() -> None:
    assert "kgcoop" in registry.names()
    toy, coop = Toy("kgcoop").shaken(), Toy("coop").shaken()
    found, plain = (t.method.step(t.batch(), t.training).losses for t in (toy, coop))
    assert found["cross_entropy"].item() == plain["cross_entropy"].item()
    text = toy.method.text_features(toy.classes).detach()
    distance = np.mean([1 - float(a @ b) for a, b in zip(text, toy.classes.directions, strict=True)])
    assert toy.method.total(found).item() == pytest.approx(plain["cross_entropy"].item() + 8 * distance, rel=1e-4)


@pytest.mark.usefixtures("kgcoop")
@pytest.mark.parametrize("test", CONTRACT, ids=lambda test: test.__name__)
def test_the_contract_holds_for_it(test: Callable[[str], None]) -> None:
    test("kgcoop")


def test_all_of_the_contract_is_in_the_list() -> None:
    assert len(CONTRACT) > 15
    assert contract.test_loss_falls in CONTRACT


def test_what_a_method_may_set_and_use_exists() -> None:
    """Attributes and functions that the page names are those of the base."""
    table = DOCUMENT[DOCUMENT.index("| it needs") : DOCUMENT.index("## A dataset")]
    flags = set(re.findall(r"`(\w+) = ", table))
    declared = {name for name in vars(Method) if isinstance(vars(Method)[name], bool | int | None) and name[0] != "_"}
    assert flags == declared - {"trains", "reconstruction"}
    hooks = {"class_logits", "batch_features", "extended", "frozen_features", "target", "begin", "step_end",
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
    entry = yaml.safe_load(block("yaml"))
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


def test_the_tutorials_experiment(tmp_path: Path) -> None:
    """Its entry and its configuration resolve to the runs of one table."""
    entry, experiment = (
        yaml.safe_load(text)
        for text in re.findall(r"```yaml\n(.*?)```", Path("docs/tutorial.md").read_text(), re.DOTALL)
    )
    catalog = tmp_path / "datasets.yaml"
    catalog.write_text(yaml.safe_dump(yaml.safe_load(Path("config/datasets.yaml").read_text()) | entry))
    (tmp_path / "classes").symlink_to(Path("config/classes").absolute())
    below = Path(experiment["extends"]).absolute()
    mine = tmp_path / "pets.yaml"
    mine.write_text(yaml.safe_dump(experiment | {"extends": str(below), "catalog": str(catalog)}))
    grid = build(load([mine]), "pets.yaml")
    assert list(grid.exhibits) == ["table2"]
    runs = [(run.method, run.dataset, run.ratio, run.seed) for run in grid.runs.values() if run.method != "zeroshot"]
    assert sorted(runs) == [(method, "pets", 0.06, seed) for method in ("coop", "cpt", "ivlp") for seed in (1, 2, 3)]
    assert {run.dataset for run in grid.runs.values()} == {"pets"}
