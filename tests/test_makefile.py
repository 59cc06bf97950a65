"""`make` in folders of any name, with a Python that only notes how it is called."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PYTHON = r"""#!/bin/sh
echo "$(basename "$0") $*" >> "$NOTES"
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/snakemake" ;;
    "-c import") echo 2 ;;
esac
"""


@pytest.mark.parametrize("name", ["plain", "with space", "my project (v2) 'é'", 'a;b & "c" #'])
def test_any_folder_will_do(tmp_path: Path, root: Path, name: str) -> None:
    folder, stub, notes = tmp_path / name, tmp_path / "python", tmp_path / "notes"
    (folder / "envs").mkdir(parents=True)
    for file in ("Makefile", "pyproject.toml", "envs/requirements.txt", "envs/requirements-dev.txt"):
        shutil.copy(root / file, folder / file)
    stub.write_text(PYTHON)
    stub.chmod(0o755)
    told = ("MAKEFLAGS", "VIRTUAL_ENV", "VENV", "PYTHON", "PY")  # by a make that runs these tests
    environment = {key: value for key, value in os.environ.items() if key not in told}
    for target in ("environment", "run", "test"):
        command = ["make", target, f"PYTHON={stub}", "CORES=2"]
        done = subprocess.run(
            command, cwd=folder, env=environment | {"NOTES": str(notes)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    called = notes.read_text().splitlines()
    assert [line.split()[0] for line in called] == ["python"] * 4 + ["snakemake"] + ["python"] * 2
    assert called[1] == "python -m venv .venv"
    assert called[2].endswith("-r envs/requirements.txt")
    assert called[4].startswith("snakemake --cores 2")
    assert called[5].endswith("-r envs/requirements-dev.txt"), "only the tests need the developer's tools"
    assert called[6].startswith("python -m pytest")
    assert (folder / ".venv/.ready").is_file()


def test_help_lists_every_target_for_users_first(root: Path) -> None:
    done = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True)
    users, developers = done.stdout.split("\nTo develop it\n")
    assert [line.split()[1] for line in users.splitlines() if line.startswith("  make ")][:2] == ["help", "run"]
    phony = re.search(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), re.MULTILINE)[1].split()
    listed = re.findall(r"^  make (\S+) +\S", users + developers, re.MULTILINE)
    assert sorted(listed) == sorted(phony)
    assert "test" in developers
    assert "pytest" not in done.stdout
