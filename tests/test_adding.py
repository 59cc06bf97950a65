"""The worked examples of docs/adding.md, run as they stand."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import cpt.methods
from cpt.data.catalog import load_catalog
from cpt.data.layouts import make_manifest
from cpt.data.manifest import read_manifest
from cpt.data.split import make_split
from cpt.methods import registry
from tests.test_methods import CLASSES, make, steps

DOCUMENT = Path("docs/adding.md").read_text()


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)[1]


@pytest.fixture
def kgcoop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "kgcoop.py").write_text(block("python"))
    monkeypatch.setattr(cpt.methods, "__path__", [*cpt.methods.__path__, str(tmp_path)])
    registry.names.cache_clear()
    yield
    registry.names.cache_clear()
    sys.modules.pop("cpt.methods.kgcoop", None)


@pytest.mark.usefixtures("kgcoop")
def test_a_method_in_one_file() -> None:
    assert "kgcoop" in registry.names()
    method, training = make("kgcoop", CLASSES)
    losses = steps(method, training, 6, rate=0.002)
    assert losses[-1] < losses[0]


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
