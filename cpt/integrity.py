"""Whether a file is what its stage wrote, by the record beside it (``cpt.provenance``), and what makes it again."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpt.canonical import canonical_json, json_text, sha256_text

SCHEMA = "cpt.provenance/1"
SUFFIX = ".provenance.json"
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


def mend(path: Path) -> str | None:
    """Return the command that makes a file of an experiment again; None for other files.

    It is to be called in the project's folder, where ``results`` lies.
    """
    again, _ = written(path) or (path, None)
    for root in path.absolute().parents:
        if (root / "grid.json").exists() or (root / f"grid.json{SUFFIX}").exists():
            try:
                configuration = read_record(root / f"grid.json{SUFFIX}")["configuration"]
            except (ValueError, KeyError):
                configuration = DEFAULT
            target = Path(root.parent.name, root.name, again.absolute().relative_to(root))
            return command(target.as_posix(), configuration)
    return None
