"""What happens to the files of a finished experiment, and what the messages lead to."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cpt.workflow.verify import verify
from tests.faults.project import RESULTS, Kept, Session
from tests.faults.scenarios import Outcome, flip


def truncate(path: Path, stream: random.Random) -> None:
    """Cut a file off somewhere."""
    os.truncate(path, stream.randrange(path.stat().st_size))


def forbid(path: Path, _: random.Random) -> None:
    """Make a file unreadable; root may read everything, so it gets a folder in the file's place."""
    if os.geteuid() == 0:
        path.unlink()
        path.mkdir()
    else:
        path.chmod(0)


def delete(path: Path, _: random.Random) -> None:
    """Delete a file."""
    path.unlink()


@dataclass(frozen=True)
class Damage:
    """Something that happens to one file.

    Attributes:
        file: pattern below the experiment's folder.
        how: what happens to it.
        removed: patterns of what is gone too, so that a job that reads the file has to run again.
        noticed: by ``reader``, by ``verify`` alone, or by ``nobody``: it is made again.
    """

    file: str
    how: Callable[[Path, random.Random], None]
    removed: tuple[str, ...]
    noticed: str = "reader"


LAND, PHOTOS, AGGREGATE = "runs/base_to_new/land/*", "runs/base_to_new/photos/*", ("runs.parquet",)


def evaluated(run: str) -> tuple[str, ...]:
    """Patterns of what `cpt predict` and `cpt score` made of a run."""
    return f"{run}/predictions.parquet", f"{run}/metrics.parquet"


GROUPS: dict[str, dict[str, Damage]] = {
    "what runs wrote": {
        "a byte flips in prompts (safetensors)": Damage(
            f"{PHOTOS}/cpt-*/s1/prompts.safetensors", flip, evaluated(f"{PHOTOS}/cpt-*/s1")
        ),
        "a byte flips in run.json": Damage(f"{PHOTOS}/coop-*/s1/run.json", flip, evaluated(f"{PHOTOS}/coop-*/s1")),
        "predictions (Parquet) are cut off": Damage(
            f"{LAND}/coop-*/s1/predictions.parquet", truncate, (f"{LAND}/coop-*/s1/metrics.parquet",)
        ),
        "metrics (Parquet) cannot be read": Damage(f"{LAND}/zeroshot-*/s0/metrics.parquet", forbid, AGGREGATE),
        "a byte flips in the configuration that Snakemake keeps resolved": Damage(
            "../../work/slice/workflow.json", flip, AGGREGATE, "nobody"
        ),
    },
    "what runs read": {
        "a byte flips in a split (Parquet)": Damage(
            "splits/base_to_new/land/r0.5/s1.parquet", flip, (f"{LAND}/coop-*/s1/*",)
        ),
        "a byte flips in centroids (safetensors)": Damage(
            "clusters/base_to_new/photos/*/s1.safetensors", flip, (f"{PHOTOS}/cpt-*/s1/*",)
        ),
        "a byte flips in text features (safetensors)": Damage(
            "features/photos/text-single.safetensors", flip, (f"{PHOTOS}/coop-*/s1/*",)
        ),
        "a byte flips in packed images": Damage("data/land/images.npy", flip, (f"{LAND}/cpt-*/s1/*",)),
        "an image cache is cut off": Damage(
            "data/photos/pixels-test.npy", truncate, ("features/photos/images-test.safetensors",)
        ),
        "a byte flips in grid.json": Damage("grid.json", flip, AGGREGATE),
    },
    "the backbone and an image cache": {
        "the backbone's record (JSON) is deleted": Damage("backbone.json", delete, (f"{LAND}/coop-*/s1/*",)),
        "a byte flips in an image cache": Damage("data/photos/pixels-test.npy", flip, evaluated(f"{PHOTOS}/cpt-*/s1")),
    },
    "the weights and a manifest": {
        "a manifest (Parquet) is cut off": Damage("data/photos/manifest.parquet", truncate, (f"{PHOTOS}/coop-*/s1/*",)),
        "the backbone's weights (safetensors) are cut off": Damage(
            "backbone.safetensors", truncate, (f"{LAND}/coop-*/s1/*",)
        ),
        "a byte flips in a record of provenance": Damage(
            f"{LAND}/cpt-*/s1/run.json.provenance.json", flip, AGGREGATE, "verify"
        ),
    },
}
"""Damages that one project suffers together, because calling Snakemake takes seconds."""


def damage(kept: Kept, folder: Path, group: str) -> dict[str, Outcome]:
    """Damage files of a finished experiment, run, and do what the messages say until it runs through."""
    root, damages = kept.copy("finished", folder) / RESULTS, GROUPS[group]
    files = {name: next(iter(sorted(root.glob(what.file)))) for name, what in damages.items()}
    for what in damages.values():
        for path in [path for pattern in what.removed for path in root.glob(pattern)]:
            path.unlink(missing_ok=True)
    for name, file in files.items():
        damages[name].how(file, random.Random(name))
    names = {os.path.relpath(file, folder): name for name, file in files.items()}
    session, told = Session(kept, folder), {}
    for _ in range(4):
        if session.again():
            break
        found = dict(messages(session.text, "cpt: error: "))
        assert found.keys() <= names.keys(), session.text[-3000:]
        assert found.keys() - {file for file, _ in told}, session.text[-3000:]
        for file, (problem, fix) in found.items():
            told[file, "reader"] = problem
            session.type(fix, "fix")
    if left := {finding.file for finding in verify(root).findings}:
        session.type(f"cpt verify {RESULTS}", "verify")
        for file, (problem, fix) in messages(session.text, ""):
            assert os.path.relpath(file, RESULTS) in left
            told[file, "verify"] = problem
            assert session.type(fix, "fix"), session.text
        assert session.again(), session.text
    expected = {(file, damages[name].noticed) for file, name in names.items() if damages[name].noticed != "nobody"}
    assert told.keys() == expected, (told, expected)
    same = kept.same(folder)
    return {name: outcome(damages[name].noticed, told.get((file, damages[name].noticed)), same)
            for file, name in names.items()}  # fmt: skip


def messages(text: str, beginning: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Files, what is wrong with them, and the command that fixes it."""
    for file, problem, fix in re.findall(rf"^{beginning}(\S+): (.*); fix: (snakemake .*)$", text, re.MULTILINE):
        yield file, (problem, fix)


def outcome(noticed: str, problem: str | None, same: bool) -> Outcome:
    """The outcome of one damage; numbers in messages are left out."""
    if problem is None:
        return Outcome("it goes on by itself", (), same)
    seen = re.sub(
        r"\w{12} then, \w{12} now|(?<=images )\d+ to \d+|(?<=damaged \().*(?=\))|(?<=read \().*:.*(?=\))", "…", problem
    )
    first = () if noticed == "reader" else (f"cpt verify {RESULTS}",)
    return Outcome(f"`FILE: {seen}; fix: COMMAND`", (*first, "COMMAND", "snakemake"), same)
