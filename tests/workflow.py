"""Snakemake as a user would call it, on a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def snakemake(
    folder: Path, *words: str, check: bool = True, commands: Path | None = None
) -> subprocess.CompletedProcess:
    """Call Snakemake; ``commands`` is a folder whose programs go before those of the environment."""
    environment = {key: value for key, value in os.environ.items() if key != "CPT_WORKER"}
    first = [] if commands is None else [str(commands)]
    environment["PATH"] = os.pathsep.join([*first, str(Path(sys.executable).parent), environment["PATH"]])
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--resources", "gpu=2", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=900)
    if check and done.returncode:
        raise AssertionError(done.stdout[-3000:] + done.stderr[-6000:])
    return done


def planned(folder: Path, *words: str) -> dict[str, int]:
    """Number of jobs by rule that a dry run lists."""
    text = snakemake(folder, "-n", "-q", "rules", *words).stdout
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", text, re.MULTILINE) if rule != "total"}


def copy_project(folder: Path, root: Path) -> None:
    """Copy what the workflow needs; the package itself is imported from where it is installed."""
    folder.mkdir(parents=True)
    for name in ("Snakefile", "profiles", "rules", "workflow", "config", "envs"):
        source = root / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
