"""The examples of every command's --help, typed as they stand on a finished experiment."""

from __future__ import annotations

import glob
import inspect
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from cpt.cli.app import VERBS, app
from cpt.cli.data import data
from tests.helpers.command import here
from tests.helpers.workflow import copy_project, snakemake

ABSENT = (*(f"table{i}" for i in (1, 3, 4, 5, 6, 7)), *(f"figure{i}" for i in (1, 2, 4, 5, 6, 7, 8)))
CONFIGURATION = {
    "extends": "config/default.yaml",
    "seeds": [1],
    "overrides": [{"set": {"epochs": 1, "batch_size": 16, "templates": "single", "depth_text": 2, "depth_vision": 2}}],
    "tasks": {"base_to_new": {"datasets": ["flowers"]}, "cross_dataset": None, "domain_generalization": None},
    "exhibits": {
        "table2": {"variants": ["zeroshot", "coop", "ivlp", "cpt"]},
        "figure3": {"datasets": ["flowers"], "sweep": {"tetf_weight": [0.25], "cc_weight": None, "rs_weight": None}},
        **dict.fromkeys(ABSENT),
    },
}  # fmt: skip
"""The default experiment, smaller."""


class Example(NamedTuple):
    """A command of a --help, and what it needs beside the finished experiment."""

    command: str
    needs: str


def examples() -> list[Example]:
    """Those of all commands, in the order of ``cpt --help``."""
    commands = [verb for verbs in VERBS.values() for verb in verbs]
    commands += [info.callback for info in (*data.registered_commands, *app.registered_commands)]
    found = []
    for verb in dict.fromkeys(commands):
        for text in re.findall(r"Example\b.*?(?=\n\n|\Z)", inspect.getdoc(verb) or "", re.DOTALL):
            needs, command = re.fullmatch(r"Example(.*?): `(cpt .*?)`.*", text, re.DOTALL).groups()
            found.append(Example(" ".join(command.split()), " ".join(needs.removeprefix(",").split())))
    return found


def ready() -> Iterator[Example]:
    """Those that need nothing, or an example before them."""
    waiting = [each for each in examples() if not each.needs or "after" in each.needs]
    done: set[str] = set()
    while waiting:
        can = [each for each in waiting if set(re.findall(r"`cpt (\w+)`", each.needs)) <= done]
        assert can, f"no example makes what these need: {waiting}"
        yield from can
        done |= {each.command.split()[1] for each in can}
        waiting = [each for each in waiting if each not in can]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("examples") / "project"
    copy_project(folder, root)
    (folder / "docs").mkdir()
    shutil.copy(root / "docs/report.png", folder / "docs/report.png")
    (folder / "config/config.yaml").rename(folder / "config/default.yaml")
    (folder / "config/config.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    snakemake(folder)
    return folder


@pytest.mark.slow
def test_every_example_works_on_a_finished_default_run(finished: Path) -> None:
    for example in ready():
        words = shlex.split(example.command)[1:]
        words = [name for word in words for name in (sorted(glob.glob(word, root_dir=finished)) or [word])]
        done = here(*words, cwd=finished)
        missing = example.command == "cpt data check"
        assert done.returncode == missing, f"{example.command}: {done.stderr}"


def test_what_an_example_needs_is_said() -> None:
    found = examples()
    assert len(found) > 30
    needs = {example.command.split(" --")[0]: example.needs for example in found if example.needs}
    assert needs["cpt data fetch dtd"] == "with an internet connection"
    for example in found:
        assert bool(re.search(r"my-run |results/(paper|mine)/|results/mine|openai", example.command)) <= bool(
            example.needs
        ), example
    assert [example.command.split()[1] for example in ready() if example.needs] == ["predict", "score", "many"]
