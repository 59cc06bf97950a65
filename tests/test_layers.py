"""Imports go one way, and the command line starts without the heavy libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from cpt.provenance import PACKAGE, code_version

# From low to high; a module may import from its own layer and from lower ones.
LAYERS = [
    ["errors", "canonical", "integrity", "trace", "atomic", "files", "provenance", "interruption"],
    ["seeds", "limits", "validation", "handwritten", "paths", "measures", "geometry", "losses", "device", "terminal"],
    ["config"],
    ["data"],
    ["clip", "clusters"],
    ["methods"],
    [
        "runs",
        "grid",
        "schedule",
        "optimisers",
        "state",
        "batches",
        "passes",
        "image_features",
        "mining",
        "loop",
        "train",
        "describe",
        "measure",
        "plan",
        "workflow",
        "instance",
    ],
    ["predict", "metrics", "stats", "score", "many"],
    ["aggregate", "verify", "status"],
    ["report"],
    [
        "cli",
        "cli_audit",
        "cli_data",
        "cli_many",
        "cli_plan",
        "cli_results",
        "cli_verify",
        "client",
        "worker",
        "__main__",
    ],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer(module: str) -> int | None:
    parts = module.split(".")
    return LEVEL[parts[1]] if len(parts) > 1 and parts[1] in LEVEL else None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    module = ".".join(("cpt", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    own = layer(module)
    if module == "cpt":
        return
    assert own is not None, f"{module} has no layer; put it into LAYERS"
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.startswith("cpt.") and layer(name) is not None:
                assert layer(name) <= own, f"{module} imports {name}"
            assert not name.startswith("snakemake"), f"{module} imports Snakemake"


@pytest.mark.parametrize(
    "statement",
    [
        "import cpt.cli",
        "import cpt.score",
        "import cpt.workflow",
        "import cpt.aggregate",
        "import cpt.verify",
        "import cpt.report.tables",
        "import cpt.report.page",
    ],
)
def test_light_verbs_do_not_import_torch(statement: str) -> None:
    code = f"{statement}; import sys; print(sorted(m for m in sys.modules if m in ('torch', 'open_clip', 'snakemake')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_training_does_not_import_open_clip() -> None:
    code = "import cpt.train, cpt.predict, sys; print('open_clip' in sys.modules, 'torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "statement", ["import cpt.low", "from cpt import low", "from cpt.low import VALUE", "from cpt import low as other"]
)
def test_code_version_follows_every_kind_of_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    from cpt import provenance

    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    (tmp_path / "high.py").write_text(f"def verb():\n    {statement}\n")
    versions = []
    for value in (1, 2):
        (tmp_path / "low.py").write_text(f"VALUE = {value}\n")
        provenance._module.cache_clear()
        versions.append(code_version("cpt.high"))
    provenance._module.cache_clear()
    assert versions[0] != versions[1]


def test_code_version_follows_code_not_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from cpt import provenance

    copy = tmp_path / "cpt"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)

    def version() -> str:
        provenance._module.cache_clear()
        return code_version("cpt.train", "cpt.methods.cpt")

    before = version()
    losses = copy / "losses.py"
    losses.write_text(losses.read_text().replace('"""Losses', '# a comment\n"""New words: losses'))
    assert version() == before
    (copy / "report" / "page.py").write_text("changed = 1\n")
    (copy / "methods" / "coop.py").write_text("changed = 1\n")
    assert version() == before, "a run depends on neither the report nor another method"
    page = copy / "report" / "page.html.j2"
    with_page = code_version("cpt.train", data=["report/page.html.j2"])
    page.write_text(page.read_text() + " ")
    assert code_version("cpt.train", data=["report/page.html.j2"]) != with_page
    losses.write_text(losses.read_text().replace("- 1).clamp(min=1)", "- 1).clamp(min=2)"))
    assert version() != before
    provenance._module.cache_clear()
