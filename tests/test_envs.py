"""Environments hold the same pins, name what exists, and declare what is imported; the audit decides as it should."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
ENVS = ROOT / "envs"
EVERYONE = ("slurm", "onnx", "tensorboard")
"""Extras of requirements.txt."""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        name, version = re.fullmatch(r"([A-Za-z0-9_.-]+)==([\w.]+)", line).groups()
        assert plain(name) not in found, f"{name} is pinned twice"
        found[plain(name)] = version
    return found


def pins_of(file: str) -> dict[str, str]:
    lines = (ENVS / file).read_text().splitlines()
    return pins([line for line in lines if line and not line.startswith(("#", "-r "))])


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    """What everyone gets."""
    return pins_of("requirements.txt")


def bounds(*extras: str) -> dict[str, str]:
    """Declared dependencies, and those of extras, with their lower bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    declared = [*project["dependencies"], *(each for extra in extras for each in optional[extra])]
    found = [re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement).groups() for requirement in declared]
    return {plain(name): bound for name, bound in found}


@pytest.mark.parametrize("added", ["", "dev", "docs"])
def test_every_dependency_is_pinned_within_its_bounds(pinned: dict[str, str], added: str) -> None:
    found = pinned | (pins_of(f"requirements-{added}.txt") if added else {})
    for name, bound in bounds(*EVERYONE, *([added] if added else [])).items():
        numbers = [tuple(int(part) for part in re.findall(r"\d+", text)) for text in (found[name], bound)]
        assert numbers[0] >= numbers[1], name


@pytest.mark.parametrize(
    ("extra", "some"), [("dev", {"pytest", "ruff", "mypy", "playwright"}), ("docs", {"mkdocs-material"})]
)
def test_tools_of_developers_are_not_in_everyone_s_environment(
    pinned: dict[str, str], extra: str, some: set[str]
) -> None:
    file = f"requirements-{extra}.txt"
    added = pins_of(file)
    assert "-r requirements.txt" in (ENVS / file).read_text().splitlines()
    assert not added.keys() & pinned.keys()
    assert added.keys() == bounds(extra).keys() - pinned.keys()
    assert some <= added.keys()


@pytest.mark.no_cover
def test_every_import_is_declared(pinned: dict[str, str]) -> None:
    """The package of every import is a dependency or, outside cpt/, a developer's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {plain(re.match(r"[\w.-]+", each)[0]) for each in project["dependencies"]}
    extras = {
        place: {plain(re.match(r"[\w.-]+", each)[0]) for each in project["optional-dependencies"][extra]}
        for place, extra in {
            "api/export.py": "onnx",
            "training/progress.py": "tensorboard",
            "clip/hf_encoder.py": "transformers",
        }.items()
    }  # they say what to install
    optional = project["optional-dependencies"]
    developers = {plain(re.match(r"[\w.-]+", each)[0]) for each in (*optional["dev"], *optional["docs"])}
    providers = importlib.metadata.packages_distributions()
    for path in [*(ROOT / "cpt").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "docs").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {str(name).split(".")[0] for name in names}:
                if name not in sys.stdlib_module_names and name not in ("cpt", "benchmarks", "docs"):
                    allowed = declared if (ROOT / "cpt") in path.parents else declared | developers
                    allowed |= next((extra for place, extra in extras.items() if path.match(place)), set())
                    found = providers.get(name, [name])  # the tools of make docs may be absent
                    assert {plain(each) for each in found} & allowed, f"{path.name} imports {name}"


def test_conda_file_has_the_same_pins(pinned: dict[str, str]) -> None:
    conda = yaml.safe_load((ENVS / "cpt.yaml").read_text())
    assert pins(next(each["pip"] for each in conda["dependencies"] if isinstance(each, dict))) == pinned
    assert "python=3.11" in conda["dependencies"]


@pytest.mark.parametrize("recipe", ["cpt.def", "Dockerfile"])
def test_recipes_copy_what_exists_and_install_the_pins(recipe: str) -> None:
    text = (ENVS / recipe).read_text()
    assert "pip install --no-cache-dir -r /opt/cpt/envs/requirements.txt" in text
    assert "pip install --no-cache-dir --no-deps /opt/cpt" in text
    assert "python:3.11-slim" in text
    copied = re.findall(r"^ {4}(\S+) /opt/cpt/\S+$", text, re.MULTILINE)
    for words in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        copied += words.split()
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {"envs/requirements.txt", "pyproject.toml", "README.md", "LICENSE", "cpt", *built["force-include"]} == set(
        copied
    )
    assert all((ROOT / name).exists() for name in copied)


def test_rules_name_the_environments_that_exist() -> None:
    rules = list((ROOT / "rules").glob("*.smk"))
    text = "".join(path.read_text() for path in rules)
    path = re.search(r'ENVIRONMENT = "(\S+)"', text)[1]
    assert (ROOT / "rules" / path).resolve() == ENVS / "cpt.yaml"
    assert len(re.findall(r"^ +log:", text, re.MULTILINE)) == len(re.findall(r"^ +conda:", text, re.MULTILINE))
    assert 'container: "envs/cpt.sif"' in (ROOT / "Snakefile").read_text()


# The audit


@pytest.fixture(scope="module")
def audit() -> dict:
    return runpy.run_path(str(ENVS / "audit.py"))


BAD = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["2.0"]}


@pytest.mark.parametrize(
    ("accepted", "lines"),
    [
        ({}, ["foo 1.0: PYSEC-2026-1; pin 2.0"]),
        ({"CVE-2026-1": "not called"}, []),
        ({"PYSEC-2026-1": "not called"}, []),
        ({"CVE-2026-2": "another"}, ["foo 1.0: PYSEC-2026-1; pin 2.0"]),
    ],
)
def test_a_vulnerable_pin_needs_a_reason(audit: dict, accepted: dict, lines: list[str]) -> None:
    report = {
        "dependencies": [
            {"name": "foo", "version": "1.0", "vulns": [BAD]},
            {"name": "bar", "version": "1.0", "vulns": []},
            {"name": "baz", "skip_reason": "not found"},
        ]
    }
    assert audit["vulnerabilities"](report, accepted) == (lines, 2, ["baz"])


def test_a_secret_is_found(audit: dict, tmp_path: Path) -> None:
    """With the real scanner, on a made-up key of the form that is looked for, and a checksum."""
    (tmp_path / "settings.py").write_text('aws = "' + "AKIA" + "IOSFODNN7EXAMPLQ" + '"\n')
    (tmp_path / "sums.py").write_text(f'sum = "{hashlib.sha256(b"").hexdigest()}"\n')
    command = [sys.executable, "-m", "detect_secrets", "scan", "--no-verify", "--all-files", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert {line.split(":")[0] for line in audit["secrets"](report, {})} == {"settings.py", "sums.py"}
    (line,) = audit["secrets"](report, {"sums.py": "a checksum"})
    assert line.startswith("settings.py:1: looks like a secret (AWS")
    excepted = audit["secrets"](report, {"sums.py": "a checksum", "settings.py": "an example", "gone.py": "was"})
    assert excepted[0] == line, "only checksums are excepted"
    assert [other.split(": ")[2] for other in excepted[1:]] == ["settings.py", "gone.py"]


@pytest.mark.parametrize(
    ("answers", "code", "printed"),
    [
        (
            ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', ""),
            0,
            "vulnerabilities: 1 packages asked",
        ),
        (("", "ConnectionError: no route"), 0, "SKIPPED: vulnerabilities: no answer from pip-audit: ConnectionError"),
        (
            ('{"dependencies": [{"name": "a", "skip_reason": "x"}]}', ""),
            0,
            "SKIPPED: vulnerabilities: the service does",
        ),
        (
            (json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": [BAD]}]}), ""),
            1,
            "a 1: PYSEC-2026-1; pin 2.0",
        ),
    ],
    ids=["clean", "no service", "unknown", "vulnerable"],
)
def test_what_is_printed_and_the_exit_code(
    audit: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, answers: tuple, code: int, printed: str
) -> None:
    """With invented answers of pip-audit; nothing is scanned outside a checkout, which is said."""

    def answer(module: str, *words: str) -> subprocess.CompletedProcess:
        if module == "pip_audit":
            assert {str(ENVS / "requirements.txt"), str(ENVS / "requirements-dev.txt")} <= set(words)
        told = answers if module == "pip_audit" else ("{}", "fatal: not a git repository")
        return subprocess.CompletedProcess(words, 0, *told)

    monkeypatch.setitem(audit["main"].__globals__, "_run", answer)
    assert audit["main"]() == code
    out = capsys.readouterr().out
    assert printed in out
    assert "SKIPPED: secrets: fatal: not a git repository" in out


def test_exceptions_have_reasons(audit: dict) -> None:
    assert audit["unreasoned"](yaml.safe_load((ENVS / "exceptions.yaml").read_text())) == []
    assert audit["unreasoned"]({"vulnerabilities": {"CVE-1": " "}, "secrets": {"a": None}}) == [
        "exceptions.yaml: vulnerabilities: CVE-1: needs a reason",
        "exceptions.yaml: secrets: a: needs a reason",
    ]
