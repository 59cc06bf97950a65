"""What is built from the sources works without them: the wheel in an environment and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from cpt import __version__
from cpt.errors import CptError
from cpt.workflow import study
from tests.helpers.workflow import ONLY_TABLE_2

ROOT = Path(__file__).parents[2]
SMALL = ONLY_TABLE_2 | {
    "extends": "config/config.yaml",
    "experiment": "small",
    "seeds": [1],
    "imbalance_ratios": [0.06],
}
SMALL["exhibits"] = SMALL["exhibits"] | {"table2": {"variants": ["zeroshot", "coop"]}, "table2b": None}


def called(*words: str | Path, folder: Path, environment: Path | None = None) -> str:
    """What a command prints; in another environment, nothing of this clone is found."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CPT_FORK_SERVER")}
    if environment is not None:
        variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{variables['PATH']}"
    done = subprocess.run(list(map(str, words)), cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_a_study_has_what_snakemake_and_the_configurations_need(tmp_path: Path) -> None:
    study.write_study(tmp_path / "my-study")
    made = {path.relative_to(tmp_path / "my-study").as_posix() for path in (tmp_path / "my-study").rglob("*")}
    configurations = {path.relative_to(ROOT).as_posix() for path in (ROOT / "config").rglob("*")}
    assert configurations <= made
    assert {"Snakefile", "profiles/default/config.yaml", "profiles/slurm/config.yaml"} <= made
    assert not any(name.startswith(("cpt/", "rules/", "tests/")) for name in made)
    assert list(tmp_path.iterdir()) == [tmp_path / "my-study"], "nothing is left beside it"
    with pytest.raises(CptError, match="my-study: exists; delete it or choose another name"):
        study.write_study(tmp_path / "my-study")


def test_a_package_without_the_workflow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "PACKAGE", tmp_path / "site-packages/cpt")
    with pytest.raises(CptError, match="no Snakefile; install cpt from its wheel, or work in a clone"):
        study.write_study(tmp_path / "my-study")
    assert not (tmp_path / "my-study").exists()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    called(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=ROOT)
    return folder


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which finds this one's libraries but not its editable install."""
    made = tmp_path_factory.mktemp("environment") / "env"
    called(sys.executable, "-m", "venv", "--without-pip", made, folder=made.parent)
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", made / "bin/python"]
    called(*pip, "install", "-q", "--no-deps", "--no-index", wheel, folder=made.parent)
    (site,) = made.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


@pytest.mark.slow
def test_the_sdist_holds_the_project(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = called("git", "ls-files", folder=ROOT).split()
    assert {name for name in tracked if not (ROOT / name).is_symlink()} <= names
    assert not [
        name for name in names if name.startswith((".venv", ".hypothesis", "results/", "work/")) and name not in tracked
    ]


@pytest.mark.slow
def test_the_wheel_holds_the_workflow_and_no_tests(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    assert f"cpt_longtail-{__version__}.dist-info/METADATA" in names
    for name in called("git", "ls-files", "Snakefile", "rules", "config", "workflow", folder=ROOT).split():
        assert f"cpt/project/{name}" in names
    package = called("git", "ls-files", "cpt", folder=ROOT).split()
    assert set(package) <= names
    assert {name.split("/")[0] for name in names} == {"cpt", f"cpt_longtail-{__version__}.dist-info"}


@pytest.mark.slow
def test_the_wheel_runs_an_experiment_in_a_folder_of_its_own(environment: Path, tmp_path: Path) -> None:
    python, cpt = environment / "bin/python", environment / "bin/cpt"
    where = called(python, "-c", "import cpt; print(cpt.__file__)", folder=tmp_path, environment=environment)
    assert Path(where.strip()).is_relative_to(environment)
    said = called(cpt, "init", "my-study", folder=tmp_path, environment=environment)
    assert said == "wrote my-study; next:\n  cd my-study\n  snakemake --cores 2\n"
    folder = tmp_path / "my-study"
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    snakemake = [python, "-m", "snakemake", "--cores", "2"]
    called(*snakemake, "--configfile", "small.yaml", folder=folder, environment=environment)
    assert "CoOp" in (folder / "results/small/report/index.html").read_text()
    said = called(cpt, "verify", "results/small", folder=folder, environment=environment)
    assert "all fit" in said
    jobs = called(*snakemake, "-n", "-q", "rules", folder=folder, environment=environment)
    assert "\nall " in jobs, "the default experiment is planned"


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", " as longtail_*"])
def test_another_workflow_uses_it_as_a_module(environment: Path, tmp_path: Path, prefix: str) -> None:
    called(environment / "bin/cpt", "init", "made", folder=tmp_path, environment=environment)
    folder = (tmp_path / "made").rename(tmp_path / "other")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    (site,) = environment.glob("lib/python*/site-packages")
    (folder / "Snakefile").write_text(f"""
configfile: "small.yaml"

module longtail:
    snakefile: "{site}/cpt/project/workflow/Snakefile"
    config: config

use rule * from longtail{prefix}
""")
    words = [environment / "bin/python", "-m", "snakemake", "--cores", "2"]
    called(*words, folder=folder, environment=environment)
    assert (folder / "results/small/report/index.html").is_file()
