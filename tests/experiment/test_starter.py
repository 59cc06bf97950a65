"""The configuration that ``cpt init`` writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cpt.errors import CptError
from cpt.experiment import config, grid
from cpt.experiment.starter import write_starter

PROJECT = Path(__file__).parents[2]
CLASSES = ("ant", "bee", "cat", "dog", "eel")


def paint(folder: Path, classes: tuple[str, ...] = CLASSES, images: int = 8) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config").symlink_to(PROJECT / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def built(path: Path) -> grid.Grid:
    return grid.build(config.load([path]), str(path))


@pytest.mark.parametrize("tiny", [True, False])
def test_it_asks_for_two_tables_of_one_folder(project: Path, tiny: bool) -> None:
    path, found = write_starter("zoo", paint(project / "images"), Path(), tiny=tiny)
    assert found == (
        f"{project / 'images'}: 5 classes, 20 training, 10 validation, 10 test images, cut by cpt (50, 20 and 30 %)"
    )
    made = built(path)
    assert set(made.exhibits) == {"all_classes", "halves"}
    runs = made.runs.values()
    assert {run.dataset for run in runs} == {"zoo"}
    assert {(run.protocol, run.method) for run in runs} == {
        (protocol, method)
        for protocol in ("base_to_new", "few_shot")
        for method in ("zeroshot", "coop", "ivlp", "cpt")
    }  # fmt: skip
    assert {run.ratio for run in runs} == {"natural"}
    assert {run.hyperparameters.classes_per_cluster for run in runs if run.method == "cpt"} == {4}


def test_parts_that_are_there_are_kept(project: Path) -> None:
    paint(project / "images/train")
    paint(project / "images/test", images=3)
    _, found = write_starter("zoo", project / "images", Path(), tiny=True)
    assert found == f"{project / 'images'}: 5 classes, 40 training, 15 test images"


def test_what_cannot_be_begun(project: Path) -> None:
    images = paint(project / "images")
    write_starter("zoo", images, Path(), tiny=True)
    before = (project / "zoo.yaml").read_bytes()
    for name, folder, message in (
        ("zoo", images, "zoo.yaml: exists; delete it or choose another name"),
        ("Zoo", images, "'Zoo': may have lower-case letters"),
        ("two", images / "ant", "has no folders; put the images of each class into one of its own"),
        ("two", paint(project / "one", CLASSES[:1]), "one class, 'ant'; add a folder of images of another one"),
        ("two", project / "nowhere", "nowhere is missing"),
    ):
        with pytest.raises(CptError, match=message):
            write_starter(name, folder, Path(), tiny=True)
    assert (project / "zoo.yaml").read_bytes() == before
    assert not list(project.glob("two*"))
