"""Imports go one way, and the command line starts without the heavy libraries."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from cpt.files.provenance import PACKAGE, code_version

# From low to high: a room imports from itself and from rooms above it in this list. The first are the modules of
# cpt/ itself, which every room may use. One exception: cpt.experiment.exhibits finds kinds of figures, layouts and
# formats of tables in cpt.report by name. So each of these is one file.
ROOMS = [
    "errors limits seeds validation",
    "files",
    "metrics",
    "data",
    "clip",
    "features",
    "methods",
    "experiment",
    "training",
    "costs",
    "evaluation",
    "results",
    "workflow",
    "api",
    "report",
    "cli",
    "__main__",
]
LEVEL = {name: level for level, names in enumerate(ROOMS) for name in names.split()}
MODULES = {
    ".".join(("cpt", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in MODULES else node.module for name in names)
    return found


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("module", [module for module in MODULES if module != "cpt"])
def test_imports_go_one_way(module: str) -> None:
    assert room(module) in LEVEL, f"{module} stands in no room of ROOMS"
    for name in imports(MODULES[module]):
        assert not name.startswith("snakemake"), f"{module} imports Snakemake"
        if name.startswith("cpt."):
            assert LEVEL[room(name)] <= LEVEL[room(module)], f"{module} imports {name}"


def test_only_exhibits_are_found_by_name_in_the_report() -> None:
    """``stages`` names the modules whose change makes a stage's outputs stale; it imports none of them."""
    found = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            named = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if re.fullmatch(r"cpt\.report(\.\w+)*", named) and LEVEL[room(f"{module}.")] < LEVEL["report"]:
                found.add(module)
    assert found == {"cpt.experiment.exhibits", "cpt.experiment.stages"}


def test_rooms_are_folders_of_at_most_two_levels() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} <= LEVEL.keys() | {"assets", "__pycache__"}
    assert max(len(module.split(".")) for module in MODULES) <= 4  # cpt.room.part.module


def test_no_two_modules_need_each_other() -> None:
    graph = {module: imports(path) & MODULES.keys() for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize(
    "statement",
    [
        "import cpt.cli.app",
        "import cpt.evaluation.score",
        "import cpt.experiment.resolved",
        "import cpt.results.aggregate",
        "import cpt.workflow.verify",
        "import cpt.report.tables",
        "import cpt.report.page.make",
    ],
)
def test_light_verbs_do_not_import_torch(statement: str) -> None:
    code = f"{statement}; import sys; print(sorted(m for m in sys.modules if m in ('torch', 'open_clip', 'snakemake')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_a_configuration_imports_nothing_that_draws_or_computes() -> None:
    """It imports all kinds of figures and layouts of tables, in every job of a cluster."""
    heavy = "torch", "matplotlib", "seaborn", "pandas", "scipy", "sklearn", "pyarrow", "jinja2"
    code = (
        "import sys; from pathlib import Path; from cpt.experiment.config import load\n"
        f"load([Path('config/config.yaml')]); print(sorted(set({heavy}) & sys.modules.keys()))\n"
        "print('cpt.report.figures.violin' in sys.modules, 'cpt.report.layouts.measures' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True True"]


def test_training_does_not_import_open_clip() -> None:
    modules = "cpt.training.train, cpt.evaluation.predict"
    code = f"import {modules}, sys; print('open_clip' in sys.modules, 'torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "statement", ["import cpt.low", "from cpt import low", "from cpt.low import VALUE", "from cpt import low as other"]
)
def test_code_version_follows_every_kind_of_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    from cpt.files import provenance

    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    (tmp_path / "high.py").write_text(f"def verb():\n    {statement}\n")
    versions = []
    for value in (1, 2):
        (tmp_path / "low.py").write_text(f"VALUE = {value}\n")
        provenance._module.cache_clear()
        versions.append(code_version("cpt.high"))
    provenance._module.cache_clear()
    assert versions[0] != versions[1]


@pytest.mark.no_cover
def test_code_version_follows_code_not_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from cpt.files import provenance

    copy = tmp_path / "cpt"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)

    def version() -> str:
        provenance._module.cache_clear()
        return code_version("cpt.training.train", "cpt.methods.cpt")

    before = version()
    losses = copy / "methods/base/losses.py"
    losses.write_text(losses.read_text().replace('"""Losses', '# a comment\n"""New words: losses'))
    assert version() == before
    (copy / "report/page/make.py").write_text("changed = 1\n")
    (copy / "methods" / "coop.py").write_text("changed = 1\n")
    assert version() == before, "a run depends on neither the report nor another method"
    page = copy / "report/page/page.html.j2"
    with_page = code_version("cpt.training.train", data=["report/page/page.html.j2"])
    page.write_text(page.read_text() + " ")
    assert code_version("cpt.training.train", data=["report/page/page.html.j2"]) != with_page
    losses.write_text(losses.read_text().replace("- 1).clamp(min=1)", "- 1).clamp(min=2)"))
    assert version() != before
    provenance._module.cache_clear()
