"""Where a page's numbers are from: date, code, devices and hours, the paper and the repository."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterable
from typing import Any

from cpt.files.integrity import SUFFIX, read_record
from cpt.files.paths import COSTS
from cpt.files.stage_files import read_parquet
from cpt.report.words import counted
from cpt.results.cells import Results

PAPER = "https://arxiv.org/abs/2605.11939"
_DISTRIBUTION = "cpt-longtail"
_SHORT = 12  # characters of a commit


def origin(results: Results) -> list[tuple[str, str]]:
    """Return when and by which code the numbers were gathered, and what they were trained on.

    It comes from the record of runs.parquet and from costs.parquet, never from the clock: equal results give equal
    pages. What no record tells is left out.

    Raises:
        CptError: costs.parquet is missing or damaged.
    """
    found = _gathered(results)
    costs = read_parquet(results.folder / "costs.parquet", COSTS)[0].to_pylist()
    trained = [row for row in costs if row["steps"]]
    if trained:
        hours = sum(row["seconds"] for row in trained) / 3600
        found.append(("Training", f"{hours:.2g} hours in {counted(len(trained), 'run')}, start-up included"))
    if costs:
        found.append(("Devices", ", ".join(sorted({row["device"] for row in costs}))))
    return found


def _gathered(results: Results) -> list[tuple[str, str]]:
    record: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):  # `cpt verify` tells of it
        record = read_record(results.folder / f"runs.parquet{SUFFIX}")
    if not record:
        return []
    code = f"cpt {record['cpt']}"
    if record["commit"]:
        code += f", commit {record['commit'][:_SHORT]}" + (" with uncommitted changes" if record["dirty"] else "")
    found = [("Code", code)]
    if "time" in record:
        found.insert(0, ("Numbers gathered", record["time"].replace("T", " ").removesuffix("Z") + " UTC"))
    found.append(("Libraries", _libraries(record["versions"].items())))
    return found


def _libraries(versions: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions if name in ("python", "torch", "numpy"))


def links() -> list[tuple[str, str]]:
    """Return the paper's address, and the repository's where the package's metadata has one."""
    found = [("Paper", PAPER)]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        stated = importlib.metadata.metadata(_DISTRIBUTION).get_all("Project-URL") or []
        named = dict(text.split(", ", 1) for text in stated)
        found += [("Repository", named["Repository"])] if "Repository" in named else []
    return found
