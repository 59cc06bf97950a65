"""Snakemake as a user would call it, on a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from filelock import FileLock
from PIL import Image

from cpt.data import world

ONLY_TABLE_2 = {
    "tasks": {
        "base_to_new": {"datasets": ["land"]},
        "cross_dataset": None,
        "domain_generalization": None,
        "few_shot": None,
    },
    "exhibits": {
        **{f"table{i}": None for i in (1, 3, 4, 5, 6, 7)},
        **{f"figure{i}": None for i in range(1, 9)},
    },
}  # fmt: skip
"""Of the embedded experiment only Table 2 on one dataset; a configuration adds the table's own keys."""


CATALOG = {
    "land": {"title": "Land", "layout": "embedded", "per_class": {"train": 4, "test": 2}},
    "photos": {"title": "Photos", "layout": "folders", "root": "photos", "template": "a photo of a {}."},
}
"""The images of land as a packed dataset and as the files of ``write_photos``."""


def write_photos(folder: Path) -> None:
    """Write image files of the dataset ``land``, four training and two test images a class, below ``photos``."""
    for part, count in (("train", 4), ("test", 2)):
        pixels, labels = world.render("land", part, count)
        for i, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            path = folder / "photos" / part / world.class_names("land")[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


def leave_out(reason: str) -> NoReturn:
    """Skip the test; fail it in CI (``.ci/run``), which promises that everything was tested."""
    (pytest.fail if "CI" in os.environ else pytest.skip)(reason)


def install(programs: Sequence[str], packages: Sequence[str], what: str) -> None:
    """Install Debian's packages if any of their programs is absent; leave the test out where that is impossible."""
    if all(map(shutil.which, programs)):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        leave_out(f"needs {what}, or root and apt-get to install it")
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    with FileLock(Path(tempfile.gettempdir(), "cpt-tests-apt-get.lock")):  # of two workers, apt-get refuses the second
        if subprocess.run(command, capture_output=True).returncode:
            subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
            subprocess.run(command, check=True, capture_output=True)


def snakemake(
    folder: Path, *words: str, check: bool = True, commands: Path | None = None, places: int | None = 2
) -> subprocess.CompletedProcess:
    """Call Snakemake.

    ``commands`` is a folder whose programs go before those of the environment; ``places`` are those on the GPU, None
    those of the profile.
    """
    environment = {key: value for key, value in os.environ.items() if key != "CPT_FORK_SERVER"}
    first = [] if commands is None else [str(commands)]
    environment["PATH"] = os.pathsep.join([*first, str(Path(sys.executable).parent), environment["PATH"]])
    gpu = [] if places is None else ["--resources", f"gpu={places}"]
    command = [sys.executable, "-m", "snakemake", *gpu, "--cores", "2", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=900)
    if check and done.returncode:
        raise AssertionError(done.stdout[-3000:] + done.stderr[-6000:])
    return done


def planned(folder: Path, *words: str) -> dict[str, int]:
    """Number of jobs by rule that a dry run lists."""
    text = snakemake(folder, *words, "-n", "-q", "rules").stdout  # both take every word behind them
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
