"""The identity of the code: its hash, its commit, and that no stage runs with other code than Snakemake counts on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cpt.cli.app import run
from cpt.files import provenance
from cpt.files.provenance import PACKAGE, code_version, stamp
from tests.helpers.experiment import train_inputs, train_words

COMMIT = "import json; from cpt.files.provenance import commit; print(json.dumps(commit()))"


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    command = ["git", "-C", str(folder), *identity, *words]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=clean).stdout.strip()


def commit_all(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("x")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "all")
    return git(folder, "rev-parse", "HEAD")


def package(folder: Path) -> Path:
    shutil.copytree(PACKAGE, folder / "cpt", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    return folder


def told(folder: Path, **variables: str) -> dict:
    """The commit that code in a folder tells of itself."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | variables
    command = [sys.executable, "-c", COMMIT]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=folder)
    return json.loads(done.stdout)


def test_the_commit_is_the_packages(tmp_path: Path) -> None:
    package(tmp_path / "own")
    head = commit_all(tmp_path / "own")
    other = commit_all(tmp_path / "other")
    assert told(tmp_path / "own") == {"commit": head, "dirty": False}
    foreign = {"GIT_DIR": str(tmp_path / "other/.git"), "GIT_WORK_TREE": str(tmp_path / "other")}
    assert told(tmp_path / "own", **foreign) == {"commit": head, "dirty": False}, "hooks and editors set them"
    assert other != head
    (tmp_path / "own/notes.py").write_text("no part of the package\n")
    assert told(tmp_path / "own") == {"commit": head, "dirty": False}
    new = tmp_path / "own/cpt/experiment/new.py"
    new.write_text("a = 1\n")
    assert told(tmp_path / "own") == {"commit": head, "dirty": True}, "a module that the commit does not have"
    new.unlink()
    (tmp_path / "own/cpt/experiment/grid.py").write_text("changed = 1\n")
    assert told(tmp_path / "own") == {"commit": head, "dirty": True}


def test_a_repository_around_the_package_is_not_its_own(tmp_path: Path) -> None:
    """A virtual environment inside another project, or the project unpacked there."""
    commit_all(tmp_path / "outer")
    package(tmp_path / "outer/site-packages")
    assert told(tmp_path / "outer/site-packages") == {"commit": None, "dirty": None}


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = package(tmp_path) / "cpt"
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    monkeypatch.setattr(provenance, "_module", provenance._module.__wrapped__)
    return copy


@pytest.mark.parametrize(
    "statement",
    [
        "import cpt.methods.base.losses",
        "import cpt.methods.base.losses as other",
        "from cpt.methods.base import losses",
        "from cpt.methods.base import losses as other",
        "from cpt.methods.base.losses import anchor",
        "def later():\n    from cpt.methods.base import losses",
    ],
)
def test_whatever_imports_a_module_depends_on_it(copied: Path, statement: str) -> None:
    (copied / "reader.py").write_text(f"{statement}\n")
    before = code_version("cpt.reader")
    (copied / "methods/base/losses.py").write_text("changed = 1\n")
    assert code_version("cpt.reader") != before


def test_a_stamp_is_of_the_code_that_it_names(copied: Path) -> None:
    asked = stamp("cpt.report.tables", data=["report/templates/table.html.j2"])
    provenance.require_code(asked)
    (copied / "report/page/make.py").write_text("changed = 1\n")
    provenance.require_code(asked)
    template = copied / "report/templates/table.html.j2"
    template.write_text(template.read_text() + " ")
    with pytest.raises(provenance.CptError, match=r"code of cpt\.report\.tables has changed since Snakemake started"):
        provenance.require_code(asked)


def words(results: Path, output: Path, code: str | None) -> list[str]:
    return train_words(train_inputs(results, "coop", hyperparameters={"epochs": 1}, code=code), output)


def test_a_training_tells_the_code_that_ran(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    own = code_version("cpt.training.train", "cpt.methods.coop")
    for code, succeeds in ((None, True), (own, True), ("0" * 12, False)):
        monkeypatch.setattr(sys, "argv", ["cpt", *words(results, tmp_path / str(code), code)])
        assert run() == (0 if succeeds else 1)
        if succeeds:
            assert json.loads((tmp_path / str(code) / "run.json").read_text())["code"] == own
    error = capsys.readouterr().err
    assert error.startswith(
        "cpt: error: --code: the code of cpt.training.train and method coop has changed since Snakemake"
    )
    assert error.count("\n") == 1
    assert not (tmp_path / ("0" * 12) / "run.json").exists()


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("code", ["cpt.evaluation.score=000000000000", "cpt.nothing=1", "nonsense"])
def test_other_code_is_refused_by_every_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, code: str, many: bool
) -> None:
    asked = ["score", "my-run", "--split", "s1.parquet"]
    command = {"words": asked, "needs": [], "makes": ["my-run/x"], "keep": str(tmp_path / "kept"), "code": code}
    monkeypatch.setattr(sys, "argv", ["cpt", *(["many", json.dumps(command)] if many else ["--code", code, *asked])])
    assert run() == 1
    printed = capsys.readouterr()
    assert f"cpt: error: --code{': the code of cpt.evaluation.score has changed' if '0' in code else f' {code}'}" in (
        printed.out if many else printed.err
    )
