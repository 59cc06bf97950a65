"""The configuration that ``cpt init`` writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from cpt.cli.app import app
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
        ("dtd", images, "dtd: config/datasets.yaml has a dataset of this name; choose another one, such as my_dtd"),
        ("two", images / "ant", "has no folders; put the images of each class into one of its own"),
        ("two", paint(project / "one", CLASSES[:1]), "one class, 'ant'; add a folder of images of another one"),
        ("two", project / "nowhere", "nowhere is missing"),
    ):
        with pytest.raises(CptError, match=message):
            write_starter(name, folder, Path(), tiny=True)
    assert (project / "zoo.yaml").read_bytes() == before
    assert not list(project.glob("two*"))
    assert not list(project.glob("dtd*"))


def test_the_commands_that_it_prints_work(project: Path) -> None:
    """The check of the dataset, and a configuration whose tables say what they show."""
    done = CliRunner().invoke(app, ["init", "zoo", "--images", str(paint(project / "my_images")), "--tiny"])
    assert done.exit_code == 0
    check, run, read = done.output.splitlines()[-3:]
    assert read == "  cat results/zoo/tables/all_classes.md    # or open results/zoo/report/index.html"
    assert run == "  snakemake --cores 2 --configfile zoo.yaml"
    assert check == "  cpt data check zoo --catalog zoo.datasets.yaml"
    checked = CliRunner().invoke(app, check.split()[1:])
    assert checked.exit_code == 0
    assert re.search("^zoo +derived split +20 +10 +10 ", checked.output, re.MULTILINE)
    shown = built(project / "zoo.yaml").exhibits
    assert [exhibit["title"] for exhibit in shown.values()] == [
        "Accuracy on My images",
        "Base and new classes of My images",
    ]
    assert all(exhibit["caption"] for exhibit in shown.values())


@pytest.mark.parametrize("name", ["images", 'a "b", c: {d} # e'])
def test_any_name_of_a_folder_will_do(project: Path, name: str) -> None:
    path, _ = write_starter("zoo", paint(project / name), Path(), tiny=True)
    assert len(built(path).exhibits) == 2


def test_every_line_is_explained_in_it(project: Path) -> None:
    """Or, of a table, by its title."""
    path, _ = write_starter("zoo", paint(project / "images"), Path(), tiny=True)
    lines = path.read_text().split("exhibits:")[0].splitlines()
    silent = [line for line in lines if "#" not in line]
    assert [line.split(":")[0].strip() for line in silent] == ["  - {methods".strip(), "tasks", "domain_generalization"]
