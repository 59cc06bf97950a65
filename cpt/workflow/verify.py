"""Rechecking an experiment: every file from split to table is the one that its record and its readers' records tell.

The walk starts at what an experiment ends in (``grid.json`` says what that is) and goes back from every file to the
files that it was made from, by the records that ``cpt.files.provenance`` writes. Each file is read once.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cpt.errors import CptError
from cpt.experiment.exhibits import table_suffixes
from cpt.files import paths
from cpt.files.hashes import digest_of_file
from cpt.files.integrity import BUNDLE_LIST, SUFFIX, command, configuration, is_path, read_record, unpack
from cpt.files.stage_files import read_json

MANY = 1000
"""Files from which on progress is told."""

_WORKERS = 8


@dataclass(frozen=True)
class Finding:
    """Something that does not fit: a path relative to the experiment's folder, the problem, a shell command."""

    file: str
    problem: str
    fix: str


@dataclass
class Report:
    """What was checked, and what was found.

    Attributes:
        files: number of files that were read.
        size: their bytes.
        runs: number of runs that the grid asks for.
        findings: what does not fit.
        notices: what is worth knowing and no fault: runs of different code or libraries, changed checkouts.
        commits: number of records by commit; with ``(dirty)`` where tracked files differed from it.
        devices: number of records by device.
    """

    files: int
    size: int
    runs: int
    findings: list[Finding]
    notices: list[str]
    commits: dict[str, int]
    devices: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {"schema": "cpt.verification/1", **asdict(self)}


def verify(folder: Path, log: Callable[[str], None] = print) -> Report:
    """Check ``results/<experiment>``; ``log`` gets lines of progress.

    Raises:
        CptError: the folder is none of an experiment.
    """
    if not folder.is_dir():
        raise CptError(f"{folder}: no such folder; give results/<experiment>")
    if not any((folder / name).exists() for name in ("grid.json", f"grid.json{SUFFIX}", "backbone.json", "runs")):
        inside = sorted(place.parent for place in folder.glob("*/grid.json"))
        fix = f"did you mean {inside[0]}?" if inside else "give results/<experiment>"
        raise CptError(f"{folder}: holds no experiment (no grid.json); {fix}")
    return _Check(folder, log).report()


class _Check:
    """One experiment: its records, and the files that they name, all by path relative to the folder."""

    def __init__(self, folder: Path, log: Callable[[str], None]) -> None:
        self.folder, self.log = folder, log
        self.configuration = configuration(folder)
        self.records: dict[str, dict[str, Any]] = {}  # by the stage's main file
        self.maker: dict[str, str] = {}  # file -> main file of the record that has it among its outputs
        self.damaged: dict[str, str] = {}  # main file -> what is wrong with its record
        self.looked_at: set[str] = set()
        self.found: dict[str, list[Finding]] = defaultdict(list)
        self.actual: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        self.left_out = left_out(folder)

    def report(self) -> Report:
        grid, wanted, problem = self._grid()
        files = self._walk(wanted)
        self._hash(files)
        self._compare(files)
        if problem and not self.found["grid.json"]:
            self._find("grid.json", problem, "grid.json")
        records = [self.records[main] for main in self._reached(files)]
        notices = self._notices(grid, records)
        commits = Counter(f"{record['commit'] or 'none'}{' (dirty)' * bool(record['dirty'])}" for record in records)
        return Report(
            files=len(self.actual) + len(records),
            size=sum(os.path.getsize(self.folder / file) for file in self.actual),
            runs=len(grid["runs"]),
            findings=[finding for file in sorted(self.found) for finding in self.found[file]],
            notices=notices,
            commits=dict(commits.most_common()),
            devices=dict(Counter(record["device"] for record in records).most_common()),
        )

    def _grid(self) -> tuple[dict[str, Any], list[str], str | None]:
        """Return what the experiment asks for, the files of that, and what is wrong with the file that tells it."""
        try:
            grid = read_json(self.folder / "grid.json", paths.GRID)
            return grid, self._wanted(grid), None
        except CptError as error:
            problem = str(error).partition(": ")[2].partition("; ")[0]
        except (KeyError, TypeError, ValueError, AttributeError):
            problem = f"does not hold what a file of schema {paths.GRID} does"
        grid = {"exhibits": {}, "runs": []}
        return grid, self._wanted(grid), problem

    def _wanted(self, grid: dict[str, Any]) -> list[str]:
        """The ends of the chain, and the files in its middle that the grid names."""
        files = ["grid.json", "backbone.json", "report/index.html", *paths.GATHERED]
        for name, exhibit in grid["exhibits"].items():
            kind, suffixes = ("tables", table_suffixes()) if exhibit["kind"] == "table" else ("figures", paths.FIGURE)
            files += [f"{kind}/{name}.{suffix}" for suffix in suffixes]
        for run in grid["runs"]:
            files.append(f"runs/{run['run']}/{paths.SCORED[0]}")
            if (self.folder / "runs" / run["run"] / "run.json").exists():  # else not trained yet: one finding, not six
                where = run["protocol"], run["dataset"], run["imbalance_ratio"], run["seed"]
                clusters = run["clusters"], run["measured_clusters"]
                made = [paths.split(*where), run["text_features"], *clusters, run["descriptions"]]
                files += [file for file in made if file]
                files += [f"runs/{run['run']}/{name}" for name in (paths.TRAINED[0], paths.PREDICTED[0])]
        tested = [dataset for run in grid["runs"] for dataset, _ in run["targets"]]
        names = [run[field] for run in grid["runs"] for field in ("run", "dataset")]
        if not all(is_path(file) and is_inside(file) for file in [*files, *names, *tested]):
            raise ValueError
        return list(dict.fromkeys(files))

    # ---- the walk ------------------------------------------------------------------------------

    def _walk(self, wanted: list[str]) -> set[str]:
        """Return all files that the chain consists of."""
        files, waiting = set(wanted), list(wanted)
        while waiting:
            file = waiting.pop()
            self._look_into(os.path.dirname(file))
            if file in self.maker:
                record = self.records[self.maker[file]]
                new = [other for other in (*record["outputs"], *record["sources"]) if other not in files]
                files.update(new)
                waiting += new
        return files

    def _look_into(self, place: str) -> None:
        """Read the records of one folder, once."""
        if place in self.looked_at:
            return
        self.looked_at.add(place)
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(self.folder / place)):
                if name.endswith(SUFFIX):
                    self._read(place, os.path.join(place, name.removesuffix(SUFFIX)))

    def _read(self, place: str, main: str) -> None:
        try:
            record = read_record(self.folder / f"{main}{SUFFIX}")
        except (OSError, ValueError) as error:
            self.damaged[main] = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
            return
        for kind in ("outputs", "sources"):
            named = {os.path.normpath(os.path.join(place, name)): sha for name, sha in record[kind].items()}
            outside = ("..", "")  # of the folder, or anywhere: not of this experiment
            record[kind] = {name: sha for name, sha in named.items() if name.split(os.sep)[0] not in outside}
        self.records[main] = record
        self.maker |= dict.fromkeys(record["outputs"], main)

    def _hash(self, files: set[str]) -> None:
        """Read every file once."""

        def read(file: str) -> str | OSError:
            try:
                return digest_of_file(self.folder / file)
            except OSError as error:
                return error

        ordered, tenths = sorted(files), max(1, len(files) // 10)
        with ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1)) as pool:
            for done, (file, found) in enumerate(zip(ordered, pool.map(read, ordered), strict=True), 1):
                if isinstance(found, str):
                    self.actual[file] = found
                else:
                    missing = isinstance(found, FileNotFoundError)
                    self.absent[file] = "is missing" if missing else f"cannot be read ({found.strerror or found})"
                if done % tenths == 0 and len(files) > MANY:
                    self.log(f"{done:,} of {len(files):,} files read")

    # ---- what does not fit ---------------------------------------------------------------------

    def _compare(self, files: set[str]) -> None:
        without = {os.path.dirname(file) for file in files - self.maker.keys()}
        explained = without & {os.path.dirname(main) for main in self.damaged}
        for main, problem in self.damaged.items():
            if os.path.dirname(main) in explained:
                self._find(main + SUFFIX, problem, main)
        for file in files:
            main, written = self._written(file)
            if file in self.absent:
                if written is None or self.left_out.get(file) != written:
                    self._find(file, self.absent[file], main)
            elif written is None:
                if os.path.dirname(file) not in explained:  # by a damaged record, which may be this file's
                    self._find(file, "has no record of how it was made", main)
            elif written != self.actual[file]:
                then_now = f"{_short(written)} then, {_short(self.actual[file])} now"
                self._find(file, f"has changed since it was written ({then_now})", main)
        for main in self._reached(files):
            self._compare_sources(main)

    def _reached(self, files: set[str]) -> set[str]:
        """Main files of the stages that wrote some files."""
        return {self.maker[file] for file in files & self.maker.keys()}

    def _compare_sources(self, main: str) -> None:
        """Compare what a stage has read with what is there: it is stale when the two differ."""
        record, parts = self.records[main], Path(main).parts
        if Path(record["path"]).parts[-len(parts) :] != parts:
            self._find(main, f"was made as {record['path']} and has been moved here", main)
        others = []
        for source, used in record["sources"].items():
            now = self._written(source)[1] or self.actual.get(source, used)
            if now != used:
                others.append(f"{source} ({_short(used)} then, {_short(now)} now)")
        if others:
            more = f" and {len(others) - 1:,} others" if len(others) > 1 else ""
            self._find(main, f"was made from another {others[0]}{more}", main)

    def _written(self, file: str) -> tuple[str, str | None]:
        """Return the main file of the stage that wrote a file, and the hash of what it wrote; None without a record."""
        main = self.maker.get(file)
        return (file, None) if main is None else (main, self.records[main]["outputs"][file])

    def _find(self, file: str, problem: str, again: str) -> None:
        """Note a finding; ``again`` is the file to make again."""
        made = unpack(self.folder) if self.left_out else command(str(self.folder / again), self.configuration)
        self.found[file].append(Finding(file, problem, made))

    # ---- where it is from ----------------------------------------------------------------------

    def _notices(self, grid: dict[str, Any], records: list[dict[str, Any]]) -> list[str]:
        notices = []
        if out := self.left_out.keys() & self.absent.keys():
            notices.append(f"{len(out):,} files are not checked: this bundle was made without them (bundle.json)")
        if changed := sum(bool(record["dirty"]) for record in records):
            notices.append(f"{changed:,} of {len(records):,} records are of a checkout with changes (dirty)")
        if unknown := sum(record["commit"] is None for record in records):
            notices.append(f"{unknown:,} of {len(records):,} records tell no commit: cpt was not run from its checkout")
        seen: dict[str, set[str]] = defaultdict(set)
        for record in records:
            seen["commits"].add(str(record["commit"]))
            for library, version in record["versions"].items():
                seen[f"versions of {library}"].add(version)
        for run in grid["runs"]:
            file = f"runs/{run['run']}/run.json"
            if file in self.actual and self._written(file)[1] == self.actual[file]:
                try:
                    trained = read_json(self.folder / file, paths.RUN)
                    start = trained["hyperparameters"].get("start")  # a run that goes on from another has its code too
                    method = f"{trained['method']} on {start}" if start else trained["method"]
                    seen[f"versions of the code that trained {method}"].add(str(trained["code"]))
                except (CptError, KeyError, TypeError, AttributeError):
                    self._find(file, f"does not hold what a file of schema {paths.RUN} does", file)
        return notices + [
            f"{len(found)} {what}: {', '.join(sorted(found))}" for what, found in seen.items() if len(found) > 1
        ]


def left_out(folder: Path) -> dict[str, str]:
    """Return what ``cpt bundle`` has left out of a folder: path -> SHA-256 of what was there.

    Raises:
        CptError: its list is damaged.
    """
    path = folder / BUNDLE_LIST
    return read_json(path, paths.BUNDLE)["left_out"] if path.exists() else {}


def is_inside(path: str) -> bool:
    """Whether a relative path stays in the folder that it is relative to."""
    return not os.path.isabs(path) and ".." not in Path(path).parts


def _short(sha256: str) -> str:
    return sha256[:12]
