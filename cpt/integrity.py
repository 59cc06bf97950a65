"""Whether a file is what its stage wrote, by the record beside it (``cpt.provenance``), and what makes it again."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpt.canonical import canonical_json, json_text, sha256_text

SCHEMA = "cpt.provenance/1"
SUFFIX = ".provenance.json"
CONFIGURATION = "configuration.json"
"""Names of the configuration files, in ``work/<experiment>``."""

DEFAULT = ["config/config.yaml"]


def digest(record: dict[str, Any]) -> str:
    """Hash of a record without its field ``digest``."""
    return sha256_text(canonical_json({name: value for name, value in record.items() if name != "digest"}))


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        ValueError: it is not what was written.
    """
    try:
        text = path.read_bytes().decode()  # read_text would take other line ends for ours
        record = json.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read ({error})") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ValueError(f"is no file of schema {SCHEMA}")
    if json_text(record) != text or digest(record) != record.get("digest"):
        raise ValueError("has changed since it was written")
    return record


def written(path: Path) -> tuple[Path, str] | None:
    """Return the main file of the stage that wrote a file, and the SHA-256 of what it wrote; None without a record."""
    folder, own = path.parent, path.name + SUFFIX
    try:
        names = [own, *sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX) and name != own)]
    except OSError:
        return None
    for name in names:
        try:
            record = read_record(folder / name)
        except ValueError:
            continue  # `cpt verify` tells of it
        if path.name in record["outputs"]:
            return folder / name.removesuffix(SUFFIX), record["outputs"][path.name]
    return None


def command(target: str, configuration: Sequence[str]) -> str:
    """Shell command that makes a file again, and nothing else that is there."""
    words = ["snakemake", target, "--force", "--cores", "2", "--resources", "gpu=1"]
    if list(configuration) != DEFAULT:
        words += ["--configfile", *configuration]
    return shlex.join(words)


def configuration(root: Path) -> list[str]:
    """Return the configuration files of an experiment.

    They are in the record of its ``grid.json``; where that is lost, its last Snakemake has noted them too.

    Args:
        root: ``results/<experiment>``.
    """
    with contextlib.suppress(ValueError, KeyError):
        return read_record(root / f"grid.json{SUFFIX}")["configuration"]
    with contextlib.suppress(OSError, ValueError):
        noted = json.loads((work_folder(root) / CONFIGURATION).read_text(encoding="utf-8"))
        if isinstance(noted, list) and noted and all(isinstance(path, str) for path in noted):
            return noted
    return DEFAULT


def work_folder(root: Path) -> Path:
    """Folder of what an experiment keeps between calls; it lies beside ``results``."""
    root = root.absolute()
    return root.parent.parent / "work" / root.name


def mend(path: Path) -> str | None:
    """Return the command that makes a file of an experiment again; None for files that its workflow does not make.

    It is to be called in the project's folder, where ``results`` lies.
    """
    again, _ = written(path) or (path, None)
    for root in path.absolute().parents:
        if (root / "grid.json").exists() or (root / f"grid.json{SUFFIX}").exists():
            inside = again.absolute().relative_to(root)
            if not _makes(root, inside):
                return None
            return command(Path(root.parent.name, root.name, inside).as_posix(), configuration(root))
    return None


def _makes(root: Path, file: Path) -> bool:
    """Whether the experiment has the run or the dataset that a file is of, as far as its ``grid.json`` can be read."""
    try:
        grid = json.loads((root / "grid.json").read_text(encoding="utf-8"))
        runs, datasets = {run["run"] for run in grid["runs"]}, set(grid["datasets"])
    except (OSError, ValueError, KeyError, TypeError):
        return True
    place, *within = file.parts
    if place == "runs":
        return "/".join(within[:-1]) in runs
    if place in ("data", "features"):
        return within[0] in datasets
    return place not in ("splits", "clusters") or within[1] in datasets
