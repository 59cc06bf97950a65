"""Bundles of others: found where they are said to lie, unpacked without trust, and checked strictly."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt.data.download.unpack import unpack
from cpt.data.entry import Entry
from cpt.data.manifest import SCHEMA as MANIFEST
from cpt.data.split import SCHEMA as SPLIT
from cpt.errors import CptError
from cpt.files import paths
from cpt.files.hashes import digest_of_file
from cpt.files.integrity import BUNDLE_LIST, SUFFIX, read_record
from cpt.files.stage_files import read_json, read_parquet
from cpt.workflow.strict import Strict, strict

ARCHIVE = ".tar.gz"
_LONGEST = 60
"""Characters of a bundle's name."""
COPIED = ("grid.json", "runs.parquet", "costs.parquet")
"""Files by which two bundles are told to be copies of one: equal runs of another machine take other times."""


@dataclass(frozen=True)
class Submission:
    """A bundle that was checked.

    Attributes:
        name: what it is called here, unique among those that were given.
        given: the archive or folder.
        folder: where its files are while it is looked at.
        archive: SHA-256 of the archive; None for a folder.
        checked: what was found.
    """

    name: str
    given: Path
    folder: Path
    archive: str | None
    checked: Strict

    def record(self) -> dict[str, Any]:
        """Return who made it, of what, by which code and with which hashes, as far as its files tell."""
        told = read_json(self.folder / BUNDLE_LIST, paths.BUNDLE) if (self.folder / BUNDLE_LIST).exists() else {}
        gathered = read_record(self.folder / f"runs.parquet{SUFFIX}")
        backbone = read_json(self.folder / "backbone.json", "cpt.backbone/1")
        grid, report = read_json(self.folder / "grid.json", paths.GRID), self.checked.report
        assert report is not None
        splits = [
            paths.split(run["protocol"], run["dataset"], run["imbalance_ratio"], run["seed"]) for run in grid["runs"]
        ]
        manifests = [paths.manifest(dataset) for run in grid["runs"] for dataset, _ in run["targets"]]
        return {
            "by": None if told.get("by") is None else str(told["by"]),
            "experiment": str(grid["experiment"]),
            "runs": report.runs,
            "gathered": gathered.get("time"),
            "cpt": gathered.get("cpt"),
            "commits": report.commits,
            "devices": list(report.devices),
            "libraries": gathered["versions"],
            "notices": report.notices,
            "backbone": {name: str(backbone[name]) for name in ("name", "architecture", "pretrained", "sha256")},
            "sha256": {name: digest_of_file(self.folder / name) for name in COPIED} | self._archive(),
            "splits": self._hashes(splits, SPLIT, "split_hash"),
            "images": self._hashes(manifests, MANIFEST, "content_hash"),
        }

    def _archive(self) -> dict[str, str]:
        return {} if self.archive is None else {"archive": self.archive}

    def _hashes(self, files: Sequence[str], schema: str, name: str) -> dict[str, str]:
        return {file: str(read_parquet(self.folder / file, schema)[1][name]) for file in sorted(set(files))}


def find(places: Sequence[Path]) -> dict[str, Path]:
    """Return the bundles at some places by a name of their own: archives, folders of experiments, folders of either.

    Raises:
        CptError: a place is not there or holds none.
    """
    found: list[Path] = []
    for place in places:
        if place.name.endswith(ARCHIVE) or (place / "grid.json").exists():
            inside = [place]
        else:
            inside = sorted({*place.glob(f"*{ARCHIVE}"), *(path.parent for path in place.glob("*/grid.json"))})
        if not place.exists() or not inside:
            problem = "holds no bundle" if place.exists() else "not found"
            raise CptError(f"{place}: {problem}; give an archive of `cpt bundle`, an experiment, or a folder of these")
        found += inside
    found = list({path.resolve(): path for path in found}.values())
    short = [_slug(path.absolute().name) for path in found]
    names: dict[str, Path] = {}
    for path, name in zip(found, short, strict=True):
        if short.count(name) > 1:
            name = f"{_slug(path.absolute().parent.name)}-{name}"
        same = Counter(other.partition("~")[0] for other in names)[name]
        names[f"{name}~{same + 1}" if same else name] = path
    return names


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.removesuffix(ARCHIVE)).strip(".-")[:_LONGEST] or "bundle"


@contextlib.contextmanager
def submission(
    name: str, given: Path, catalog: Mapping[str, Entry], log: Callable[[str], None] = print
) -> Iterator[Submission]:
    """Check a bundle; its files are there for the block.

    Raises:
        CptError: the archive is damaged, holds something that is not harmless, or no experiment.
    """
    with tempfile.TemporaryDirectory(prefix="cpt-board-") as temporary:
        folder, archive = given, None
        if given.is_file():
            archive = digest_of_file(given)
            unpack(given, Path(temporary, "unpacked"))
            inside = sorted(path.parent for path in Path(temporary, "unpacked").glob("*/grid.json"))
            if len(inside) != 1:
                raise CptError(f"{given.name}: holds {len(inside)} experiments; give an archive of `cpt bundle`")
            folder = inside[0]
        yield Submission(name, given, folder, archive, strict(folder, catalog, lambda line: log(f"{name}: {line}")))
