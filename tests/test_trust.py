"""What comes from outside, or is called oddly, harms nobody: it works, or is refused in one line."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt.data.catalog import load_catalog
from cpt.errors import CptError
from cpt.experiment.config import load
from cpt.files import paths
from cpt.methods.base import registry
from cpt.report.drawing import style
from cpt.results.cells import Summary
from tests.experiment.test_config import build, changed
from tests.helpers.workflow import copy_project, snakemake

ODD = [
    "a b",
    "$(touch hacked)",
    "a;b",
    "..",
    "../up",
    "a/b",
    "-rf",
    "'",
    '"',
    "{run}",
    "`id`",
    "a\nb",
    "",
    "é",
    ".hidden",
]
EMBEDDED = {"title": "Land", "layout": "embedded", "key": "land", "per_class": {"train": 17, "test": 6}}
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ODD)
def test_odd_names_of_datasets_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump({name: EMBEDDED}))
    with pytest.raises(CptError, match=r"folders are called like it") as refused:
        load_catalog(path)
    assert "\n" not in str(refused.value)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("./-_az"), max_size=12))
def test_any_name_of_a_dataset_is_a_name_of_a_folder_or_refused(name: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "catalog.yaml")
        path.write_text(yaml.safe_dump({name: EMBEDDED}), encoding="utf-8")
        message = None
        try:
            load_catalog(path)
        except CptError as refused:
            message = str(refused)
    if message is not None:
        assert len(message.splitlines()) == 1
        return
    for made in (paths.manifest(name), paths.split("few_shot", name, 0.5, 1), paths.run("few_shot", name, 1, "a", 1)):
        assert Path(f"/results/{made}").resolve() == Path(f"/results/{made}"), "no .. in it"
        assert shlex.quote(made) == made, "no character means anything to a shell"
        assert len(Path(made).parts) == len(Path(made.replace(name, "land")).parts), "the name is one folder"


def test_usual_names_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    names = ["land", "ImageNet-R", "imagenet_v2", "2020.flowers"]
    path.write_text(yaml.safe_dump(dict.fromkeys(names, EMBEDDED), sort_keys=False))
    assert list(load_catalog(path)) == names


@pytest.mark.parametrize("name", [name for name in ODD if name])
@pytest.mark.parametrize("place", ["experiment", "backbone.name", "templates", "variants"])
def test_odd_names_in_the_configuration_are_refused(place: str, name: str) -> None:
    value = {"templates": {name: ["a {}"]}, "variants": {name: {"method": "ivlp"}}}.get(place, name)
    with pytest.raises(CptError, match=re.escape(place.split(".")[0])) as refused:
        build(changed(place, value))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("field", ["backbone.architecture", "backbone.pretrained", "catalog"])
def test_braces_in_paths_are_refused(field: str) -> None:
    with pytest.raises(CptError, match=rf"{re.escape(field)}: .*braces"):
        build(changed(field, "folder/{x}.json"))


def test_braces_in_the_path_of_descriptions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump({"land": EMBEDDED | {"descriptions": "{x}.json"}}))
    with pytest.raises(CptError, match=r"land\.descriptions: .*braces"):
        load_catalog(path)


@pytest.mark.parametrize(("folder", "file"), [("a{b}", "own.yaml"), ("a", "own{b}.yaml")])
def test_braces_in_the_projects_folder_or_the_configuration_are_refused(tmp_path: Path, folder: str, file: str) -> None:
    copy_project(tmp_path / folder, ROOT)
    shutil.copy(tmp_path / folder / "config/config.yaml", tmp_path / folder / file)
    done = snakemake(tmp_path / folder, "-n", "--configfile", file, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"cpt: error: \S+\{b\}\S*: braces in a path are wildcards .*", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"- a", b"a: [", b""])
def test_a_catalog_or_a_configuration_that_is_none_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    for read in (load_catalog, lambda path: load([path])):
        with pytest.raises(CptError, match=r"x\.yaml: \w+") as refused:
            read(path)
        assert "\n" not in str(refused.value)


def test_a_catalog_given_as_a_configuration_is_one_line() -> None:
    with pytest.raises(CptError) as refused:
        load([Path("config/datasets.yaml")])
    assert str(refused.value) == (
        "config/datasets.yaml: is a catalog of datasets; name it in a configuration, by the line "
        "`catalog: config/datasets.yaml`"
    )


@pytest.mark.parametrize("label", ["_hidden", "two\nlines", "bell\a", "\x1b[31mred", "\u202eback"])
def test_labels_that_cannot_be_shown_are_refused(label: str, tmp_path: Path) -> None:
    for field in ("label", "note"):
        with pytest.raises(CptError, match=rf"variants\.cpt\.{field}: .*(shown|legends)"):
            build(changed(f"variants.cpt.{field}", label))
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"land": EMBEDDED | {"title": label}}))
    with pytest.raises(CptError, match=r"land\.title: .*(shown|legends)"):
        load_catalog(tmp_path / "catalog.yaml")


@pytest.mark.parametrize("label", ["$\\frac{a}{b}$", "100 $ & <b>", "a_b^c \\LaTeX", "$x", "`|*[é]"])
def test_a_label_stays_what_it_is_in_a_figure(label: str, tmp_path: Path) -> None:
    with style.house_style():
        figure = style.new_figure(3, 2)
        axes = figure.subplots()
        style.draw_band(axes, [1, 2], [Summary(1, 50.0, None)] * 2, style.look(0), label)
        axes.legend()
        style.save(style.Drawing(figure, ["x"], [[1]]), tmp_path, "figure", "A figure.")
    root = ElementTree.parse(tmp_path / "figure.svg").getroot()
    assert label in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_minus_zero_is_zero() -> None:
    hp = registry.get("cpt").hyperparameters
    assert hp(tetf_weight=-0.0).model_dump_json() == hp(tetf_weight=0.0).model_dump_json()


def test_extends_nothing() -> None:
    assert build(changed("extends", None)).runs == build(changed("seeds", [1, 2])).runs


def test_two_settings_of_one_key_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpt.experiment.runs.sha256_text", lambda text: "0" * 64)
    with pytest.raises(CptError, match="two settings of cpt have the same key cpt-00000000"):
        build(changed("seeds", [1]))


UNSAFE = re.compile(
    r"yaml\.(load|unsafe_load|full_load)\(|pickle\.|allow_pickle=True|shell=True|os\.system\(|(?<![.\w])(eval|exec)\("
)


def test_nothing_from_outside_is_run() -> None:
    """No loader that can run code, no shell: in the package, the documents' and the environments' scripts."""
    for path in [*(ROOT / "cpt").rglob("*.py"), *(ROOT / "docs").glob("*.py"), *(ROOT / "envs").glob("*.py")]:
        text = path.read_text()
        assert not UNSAFE.search(text), path
        for call in re.findall(r"torch\.load\([^\n]*", text):
            assert "weights_only=True" in call, path
