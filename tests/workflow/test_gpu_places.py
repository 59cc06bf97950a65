"""How many jobs share a GPU, and the cores, is what ``--resources gpu=N`` says.

Through Snakemake, with a ``cpt`` that takes notes.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.workflow import copy_project, snakemake

DATASETS = ("land", "flowers")
NOTING = """#!{python}
import os, sys, time
from pathlib import Path

log = Path("{log}")

def note(word):
    with open(log, "a") as file:
        file.write(word + " ")

if "text-features" in sys.argv:
    note("begin")
    deadline = time.monotonic() + 120
    while {together} and log.read_text().count("begin") < 2:  # the other one has to be there too
        if time.monotonic() > deadline:
            sys.exit("the other job did not begin")
        time.sleep(0.05)
from cpt.cli.app import app
try:
    app(sys.argv[1:])
finally:
    if "text-features" in sys.argv:
        note("end")
"""


def configure(folder: Path, **changes: object) -> None:
    changed = {"extends": "config/config.yaml", "experiment": "places"} | changes
    (folder / "places.yaml").write_text(yaml.safe_dump(changed))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A project with what text features are made from."""
    folder = tmp_path_factory.mktemp("places") / "project"
    copy_project(folder, root)
    configure(folder)
    made = ["results/places/backbone.json", *(f"results/places/data/{name}/manifest.parquet" for name in DATASETS)]
    snakemake(folder, "--configfile", "places.yaml", "--", *made)
    return folder


def run(folder: Path, prepared: Path, device: str, places: int | None, together: bool) -> list[str]:
    """Make the text features of two datasets; return what the jobs noted, in order.

    ``places``: how many jobs may be on the GPU at once; None: the profile says it.
    """
    shutil.copytree(prepared, folder)
    log, commands = folder / "notes", folder / "commands"
    commands.mkdir()
    (commands / "cpt").write_text(NOTING.format(python=sys.executable, log=log, together=together))
    (commands / "cpt").chmod(0o755)
    configure(folder, device=device, fork_server=False)
    targets = [f"results/places/features/{name}/text-single.safetensors" for name in DATASETS]
    snakemake(folder, "--configfile", "places.yaml", "--", *targets, commands=commands, places=places)
    assert all((folder / target).is_file() for target in targets)
    return log.read_text().split()


@pytest.mark.slow
@pytest.mark.parametrize(("device", "places"), [("auto", 2), ("cpu", 1)], ids=["two-places", "no-place-needed"])
def test_two_jobs_at_once(tmp_path: Path, prepared: Path, device: str, places: int) -> None:
    assert run(tmp_path / "project", prepared, device, places, together=True)[:2] == ["begin", "begin"]


@pytest.mark.slow
@pytest.mark.parametrize("places", [1, None], ids=["said", "profile"])
def test_one_place_is_one_job_at_a_time(tmp_path: Path, prepared: Path, places: int | None) -> None:
    assert run(tmp_path / "project", prepared, "auto", places, together=False) == ["begin", "end"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "name"), [({}, "train"), ({"runs_per_job": 2}, "train_seeds_1_2")])
def test_trainings_augment_with_their_share_of_the_cores(prepared: Path, changes: dict[str, object], name: str) -> None:
    configure(prepared, device="auto", augmentation="rrc_flip", **changes)
    dry = ["-n", "-p", "--configfile", "places.yaml", "--cores", "16", "--resources", "gpu=3", "--until", name]
    printed = snakemake(prepared, *dry).stdout
    jobs = re.findall(
        rf"^rule {name}:\n.*?\n    threads: (\d+)\n.*?--workers (\d+) >", printed, re.MULTILINE | re.DOTALL
    )
    assert len(jobs) > 10
    assert set(jobs) == {("5", "5")}
