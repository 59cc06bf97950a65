"""Methods and datasets of other packages: tests/plugin_example from its installation to its scores, and broken ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cpt.data.catalog import find, load_catalog
from cpt.errors import CptError
from cpt.experiment.config import load
from cpt.experiment.grid import Grid, build
from cpt.experiment.resolved import load as resolve
from cpt.files import plugins
from cpt.files.provenance import code_version, stamp
from cpt.methods.base import registry
from tests.helpers.command import here
from tests.helpers.plugins import describe, install_example, on_path

METHOD, DATASETS = "cpt_plugin_example.nearest_mean", Path("config/datasets.yaml")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the example is installed."""
    return install_example(tmp_path_factory.mktemp("plugin"), tmp_path_factory.mktemp("target"))


@pytest.fixture
def installed(target: Path) -> Iterator[Path]:
    with on_path(target):
        yield target


def done(*words: object) -> str:
    """Run a command that succeeds; return what it says."""
    found = here(*map(str, words))
    assert found.returncode == 0, found.stderr
    return found.stdout


def versions(path: Path) -> dict[str, str]:
    return json.loads(path.with_name(f"{path.name}.provenance.json").read_text())["versions"]


@pytest.mark.usefixtures("installed")
def test_the_example_from_its_images_to_its_scores(results: Path, tmp_path: Path) -> None:
    data, features = tmp_path / "data/few_land", tmp_path / "features/few_land"
    for name in ("backbone.json", "backbone.safetensors"):
        (tmp_path / name).symlink_to(results / name)
    manifest, split, backbone = data / "manifest.parquet", tmp_path / "split.parquet", tmp_path / "backbone.json"
    done("data", "manifest", "few_land", "--output", data)
    chosen = ["--protocol", "base_to_new", "--ratio", "0.5", "--seed", 1, "--n-max", 8]
    done("split", "--manifest", manifest, *chosen, "--output", split)
    given = ["--manifest", manifest, "--backbone", backbone]
    texts = features / "text-single.safetensors"
    done("text-features", "few_land", *given, "--templates", "single", "--output", texts)
    for part in ("train", "test"):
        done("image-features", *given, "--part", part, "--output", features / f"images-{part}.safetensors")
    run = tmp_path / "runs/one"
    frozen = ["--text-features", texts, "--image-features", features / "images-train.safetensors"]
    done("train", "--method", "nearest_mean", "--seed", 1, *given, "--split", split, *frozen, "--output", run)
    done("predict", run, "--results", tmp_path, "--target", "few_land/base", "--target", "few_land/new")
    done("score", run, "--split", split)

    import pandas as pd

    metrics = pd.read_parquet(run / "metrics.parquet").set_index(["subset", "metric"])["value"]
    assert metrics["base", "accuracy"] > 40, "five classes"
    assert metrics["base+new", "harmonic_mean"] > 20
    own = {"cpt-plugin-example": "1.2.3"}
    assert own.items() <= versions(run / "run.json").items()
    assert own.items() <= versions(run / "predictions.parquet").items()
    assert own.items() <= versions(manifest).items()
    assert own.items() <= versions(texts).items()
    assert not own.items() <= versions(split).items(), "it used nothing of the package"
    hp = registry.get("nearest_mean").hyperparameters()
    code = code_version("cpt.training.train", *registry.modules("nearest_mean", hp))
    assert json.loads((run / "run.json").read_text())["code"] == code


@pytest.mark.usefixtures("installed")
def test_its_code_is_part_of_the_stamp(target: Path, tmp_path: Path) -> None:
    """Also what it imports by a relative name; comments do not count."""
    file = target / "cpt_plugin_example/means.py"
    text = file.read_text()
    before = stamp("cpt.training.train", METHOD)
    assert before.startswith(f"cpt.training.train+{METHOD}=")
    try:
        found = []
        for changed in (text + "# a comment\n", text.replace("clamp(min=1)", "clamp(min=2)")):
            file.write_text(changed)
            with on_path(target):
                found.append(stamp("cpt.training.train", METHOD))
    finally:
        file.write_text(text)
    assert found[0] == before != found[1]
    written = str(tmp_path / "schema.json")
    assert here("--code", before, "schema", "--output", written).returncode == 0
    assert "the code of cpt.training.train has changed" in here("--code", found[1], "schema").stderr


@pytest.mark.usefixtures("installed")
def test_a_configuration_asks_for_it_by_name(tmp_path: Path) -> None:
    made = experiment(tmp_path, {"own": {"method": "nearest_mean"}}, ["few_land", "land"])
    assert {run.method for run in made.runs.values()} == {"nearest_mean"}
    assert {run.dataset for run in made.runs.values()} == {"few_land", "land"}
    jobs = resolve(load([tmp_path / "own.yaml"]), "own", tmp_path / "memory.json").runs.values()
    assert {tuple(job.modules) for job in jobs} == {(METHOD,)}
    assert find(load_catalog(DATASETS), "few_land").title == "Few Land"


@pytest.mark.usefixtures("installed")
def test_the_methods_say_where_they_are_from() -> None:
    lines = {line.split()[0]: line for line in done("methods").splitlines() if line.strip()}
    assert lines["nearest_mean"].rstrip().endswith("; cpt-plugin-example 1.2.3")
    assert [name for name, line in lines.items() if "cpt-plugin-example" in line] == ["nearest_mean"]
    assert "source: the example of docs/adding.md; cpt-plugin-example 1.2.3" in done("methods", "nearest_mean")
    assert done("methods", "--bibtex", "nearest_mean").startswith("% nearest_mean: no entry; source: ")


def experiment(folder: Path, variants: dict, datasets: list[str]) -> Grid:
    """The default experiment's Table 2 with other rows and datasets."""
    values = {
        "extends": str(Path("config/config.yaml").absolute()),
        "variants": variants,
        "tasks": {"base_to_new": {"datasets": datasets}}
        | dict.fromkeys(("cross_dataset", "domain_generalization", "few_shot")),
        "only": ["table2"],
        "exhibits": {"table2": {"variants": list(variants)}},
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(values))
    return build(load([folder / "own.yaml"]), "own.yaml")


BROKEN = {
    "cpt.methods": {
        "raising": "broken_plugin.raising:Raising",
        "absent": "broken_plugin.absent:Absent",
        "wrong": "broken_plugin:wrong",
        "misnamed": "broken_plugin.misnamed:Misnamed",
    },
    "cpt.datasets": {"gone": "broken_plugin:gone", "bare": "broken_plugin:wrong", "odd": "broken_plugin:odd"},
}
CLASHING = {"cpt.methods": {"coop": "somewhere:CoOp"}, "cpt.datasets": {"flowers": "somewhere:flowers"}}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of which nothing can be used."""
    folder = tmp_path_factory.mktemp("faults")
    package = folder / "broken_plugin"
    package.mkdir()
    (package / "__init__.py").write_text(
        "wrong = 7\nodd = {'title': 'Odd', 'layout': 'embeded'}\ndef gone():\n    raise KeyError('gone')\n"
    )
    (package / "raising.py").write_text("raise RuntimeError('two\\nlines')\n")
    (package / "misnamed.py").write_text(
        "from cpt.methods.zeroshot import ZeroShot\nclass Misnamed(ZeroShot):\n    ...\n"
    )
    return describe(folder, "broken-plugin", "0.1", BROKEN)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raising", "RuntimeError: two lines; mend that package or `pip uninstall broken-plugin`"),
        ("absent", "ModuleNotFoundError: No module named 'broken_plugin.absent'; mend"),
        ("wrong", "broken_plugin:wrong is no subclass of cpt.methods.base.method.Method; mend"),
        ("misnamed", "its class must have name = 'misnamed', as its entry point is called; mend"),
    ],
)
def test_a_broken_method_is_told_in_one_line_when_asked_for(faults: Path, name: str, reason: str) -> None:
    with on_path(faults):
        told = here("methods", name)
        assert told.returncode == 1
        assert told.stderr.startswith(f"cpt: error: method '{name}' of broken-plugin 0.1: {reason}")
        assert told.stderr.count("\n") == 1
        assert name in registry.names()
        assert name not in registry.usable()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone", "dataset 'gone' of broken-plugin 0.1: KeyError: 'gone'; mend"),
        ("bare", "dataset 'bare' of broken-plugin 0.1: broken_plugin:wrong is no mapping with title and layout"),
        ("odd", "broken-plugin 0.1: odd.layout: 'embeded': is no layout; did you mean 'embedded'?"),
    ],
)
def test_a_broken_dataset_is_told_in_one_line_when_asked_for(
    faults: Path, tmp_path: Path, name: str, reason: str
) -> None:
    with on_path(faults):
        told = here("data", "manifest", name, "--output", str(tmp_path))
        assert told.returncode == 1
        assert told.stderr.startswith(f"cpt: error: {reason}")
        assert told.stderr.count("\n") == 1
        with pytest.raises(CptError, match=r"own\.yaml: tasks\.base_to_new\.datasets: .*broken-plugin 0\.1"):
            experiment(tmp_path, {"ivlp": {"method": "ivlp"}}, [name])


def test_what_does_not_use_a_broken_package_works(faults: Path, tmp_path: Path) -> None:
    with on_path(faults):
        assert here("--help").returncode == 0
        lines = done("methods").splitlines()
        (told,) = [line for line in lines if line.split()[:1] == ["raising"]]
        assert "RuntimeError: two lines" in told
        assert experiment(tmp_path, {"ivlp": {"method": "ivlp"}}, ["land"]).runs
        assert resolve(load([tmp_path / "own.yaml"]), "own", tmp_path / "memory.json").runs


def test_a_name_that_two_packages_have_is_refused(target: Path, tmp_path: Path) -> None:
    both = f"is in {plugins.OWN} and in clashing 2; `pip uninstall clashing` or rename its entry point"
    with on_path(describe(tmp_path / "clashing", "clashing", "2", CLASHING)):
        assert here("methods", "coop").stderr == f"cpt: error: method 'coop': {both}\n"
        with pytest.raises(CptError) as told:  # its variants name coop
            experiment(tmp_path, {"ivlp": {"method": "ivlp"}}, ["land"])
        assert str(told.value) == f"method 'coop': {both}"
        where = f"dataset 'flowers': is in {DATASETS} and in clashing 2; "
        assert here("data", "fetch", "flowers").stderr.startswith(f"cpt: error: {where}")
        assert "land" in load_catalog(DATASETS)
        assert "flowers" not in load_catalog(DATASETS)
    assert "flowers" in load_catalog(DATASETS)
    other = describe(tmp_path / "other", "other-plugin", "3", {"cpt.methods": {"nearest_mean": "somewhere:Else"}})
    with on_path(target, other), pytest.raises(CptError, match=r"cpt-plugin-example 1\.2\.3 and in other-plugin 3"):
        registry.get("nearest_mean")


def test_the_command_line_starts_beside_a_broken_package(faults: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (Path.cwd(), faults)))}
    command = [sys.executable, "-m", "cpt", "--help"]
    assert subprocess.run(command, capture_output=True, env=environment).returncode == 0
