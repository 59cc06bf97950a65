"""What the rules need of an experiment, as plain data.

Resolving a configuration imports every method and with them torch, which takes longer than the rest of reading the
Snakefile, and every cluster job reads it. So the result is kept, and resolved anew when the configuration, the catalog
or the code changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt.data.catalog import load_catalog
from cpt.data.entry import Entry
from cpt.errors import CptError
from cpt.experiment import exhibits
from cpt.experiment.config import Config
from cpt.experiment.runs import Job, Run
from cpt.files.integrity import CONFIGURATION, work_folder
from cpt.files.provenance import code_version, is_code
from cpt.files.stage_files import canonical_json, parse_json, sha256_text, write_json, write_text
from cpt.methods.base import registry

if TYPE_CHECKING:
    from cpt.experiment.grid import Grid


@dataclass(frozen=True)
class Resolved:
    """An experiment as the rules see it.

    Attributes:
        root: its folder.
        runs: training jobs by their folder below ``runs/``.
        clusters: path -> text features and options of `cpt clusters`.
        exhibits: kind of every table and figure.
        shown: positions, among the runs, of those that it shows.
        digest: hash of what grid.json holds.
        pixels: datasets whose test images are cached decoded.
        descriptions: the user's own files of class descriptions, which must be there.
        catalog: entries of the datasets.
    """

    root: str
    runs: dict[str, Job]
    clusters: dict[str, list[str]]
    exhibits: dict[str, str]
    shown: dict[str, list[int]]
    digest: str
    pixels: list[str]
    descriptions: list[str]
    catalog: dict[str, Entry]


def load(config: Config, source: str, memory: Path, notify: Callable[[str], None] = lambda _: None) -> Resolved:
    """Resolve a configuration, or take what ``memory`` holds of the same one.

    Args:
        config: a parsed configuration.
        source: the file it came from, for messages.
        memory: JSON file that keeps the result.
        notify: as in ``cpt.experiment.grid.build``, when it is resolved anew.

    Raises:
        CptError: as ``cpt.experiment.grid.build``.
    """
    catalog = load_catalog(Path(config.catalog))
    entries = {name: entry.model_dump_json() for name, entry in catalog.items()}
    methods = [module for module in registry.every_module() if is_code(module)]
    code = code_version("cpt.experiment.resolved", "cpt.experiment.grid", *methods, data=exhibits.sources())
    key = sha256_text(canonical_json([config.model_dump_json(), entries, code]))
    kept = _kept(memory, key)
    if kept is None:
        from cpt.experiment import grid as grids

        kept = _resolved(grids.build(config, source, notify))
        with contextlib.suppress(CptError):  # a read-only folder only costs the time
            write_text(memory, canonical_json({"key": key, "sha256": sha256_text(canonical_json(kept)), **kept}))
    return _typed(kept, catalog)


def of(grid: Grid) -> Resolved:
    """What ``load`` gives for the configuration of a grid."""
    return _typed(_resolved(grid), grid.catalog)


def remember(files: Sequence[str], root: Path) -> None:
    """Note the configuration files of ``results/<experiment>``, for when the record that tells them is lost."""
    path, names = work_folder(root) / CONFIGURATION, list(files)
    with contextlib.suppress(OSError, ValueError):
        if parse_json(path.read_text(encoding="utf-8")) == names:
            return
    with contextlib.suppress(CptError):  # a read-only folder
        write_json(path, names)


def _typed(kept: dict[str, Any], catalog: dict[str, Entry]) -> Resolved:
    return Resolved(catalog=catalog, **kept | {"runs": {name: Job(**job) for name, job in kept["runs"].items()}})


def _kept(memory: Path, key: str) -> dict[str, Any] | None:
    try:
        kept = parse_json(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or kept.pop("key", None) != key:
        return None
    if kept.pop("sha256", None) != sha256_text(canonical_json(kept)):  # damaged
        return None
    return kept if all(Path(file).is_file() for file in kept["descriptions"]) else None


def _resolved(grid: Grid) -> dict[str, Any]:
    from cpt.experiment.grid import digest

    clusters = {}
    for run in grid.runs.values():
        for one in (run, grid.clustered(run)):
            if one and one.clusters and one.clusters not in clusters:
                clusters[one.clusters] = [one.text_features, *_clustering(one)]
    jobs = {name: grid.job(run) for name, run in grid.runs.items()}
    own = {grid.catalog[job.dataset].descriptions for job in jobs.values() if job.descriptions}
    return {
        "root": grid.root,
        "clusters": dict(sorted(clusters.items())),
        "runs": {name: asdict(job) for name, job in jobs.items()},
        "exhibits": {name: exhibit["kind"] for name, exhibit in grid.exhibits.items()},
        "shown": _shown(grid),
        "digest": digest(grid),
        "pixels": sorted(grid.pixels),
        "descriptions": sorted(own - {None}),
    }


def _shown(grid: Grid) -> dict[str, list[int]]:
    """Runs of every exhibit, as numbers: thousands of names would be read by every job."""
    positions = {name: i for i, name in enumerate(grid.runs)}
    cells = {name: exhibit["cells"] for name, exhibit in grid.exhibits.items()}
    return {name: sorted({positions[run] for cell in of for run in cell["runs"]}) for name, of in cells.items()}


def _clustering(run: Run) -> list[str]:
    """Options of `cpt clusters` for the clusters that a run needs."""
    chosen = run.clustering
    assert chosen is not None
    words = ["--protocol", run.protocol, "--algorithm", chosen["algorithm"], "--seed", str(chosen["seed"])]
    if chosen["clusters"]:
        return [*words, "--number", str(chosen["clusters"])]
    return [*words, "--classes-per-cluster", str(chosen["classes_per_cluster"])]
