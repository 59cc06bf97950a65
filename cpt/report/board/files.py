"""The numbers of the board for other programs: board.parquet and board.csv (docs/files.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cpt import __version__
from cpt.files.paths import NATURAL
from cpt.files.stage_files import write_parquet, write_text
from cpt.report.board.rows import Row
from cpt.results.cells import csv_text, judged_by
from cpt.results.ranks import Rank

SCHEMA = "cpt.board/1"
MEASURED = ("value", "base", "new", "head", "medium", "tail")
"""Each with the bounds of its interval; ``value`` is what the task is judged by."""

_TEXTS = ("setting", "task", "backbone", "backbone_sha256")
_ROW = ("row", "label", "note", "method", "hyperparameters")
COLUMNS = pa.schema([
    *((name, pa.string()) for name in _TEXTS), ("imbalance_ratio", pa.float64()), ("datasets", pa.list_(pa.string())),
    *((name, pa.string()) for name in _ROW), ("trained_ratio", pa.float64()), ("augmentation", pa.string()),
    ("control", pa.bool_()), ("knowledge", pa.string()), ("more_knowledge", pa.bool_()),
    ("seeds", pa.list_(pa.int64())), ("metric", pa.string()),
    *((f"{name}{end}", pa.float64()) for name in MEASURED for end in ("", "_low", "_high")),
    *((name, pa.int64()) for name in ("rank_first", "rank_last", "better_than", "worse_than")),
    ("hours", pa.float64()), ("device", pa.string()), ("parameters", pa.int64()),
    ("bundle", pa.string()), ("by", pa.string()), ("cpt", pa.string()), ("also_in", pa.list_(pa.string())),
    ("also_differs", pa.float64()),
])  # fmt: skip


def write_numbers(
    output: Path, rows: Sequence[tuple[Row, Rank | None]], records: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write board.parquet and board.csv: a row of ``COLUMNS`` per row of the board.

    Args:
        output: the board's folder.
        rows: with their ranks; None for those that are not ranked.
        records: of the accepted bundles, by name.
    """
    table = table_of(rows, records)
    bundles = {name: record["sha256"] for name, record in records.items()}
    write_parquet(output / "board.parquet", table, SCHEMA, cpt=__version__, bundles=bundles)
    lines = [_cells(list(row.values())) for row in table.to_pylist()]
    write_text(output / "board.csv", csv_text(table.column_names, lines))


def table_of(rows: Sequence[tuple[Row, Rank | None]], records: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """Return the table of ``write_numbers``.

    Raises:
        ValueError, TypeError: a value is not of the kind that its column has.
    """
    return pa.Table.from_pylist([_values(row, rank, records[row.bundle]) for row, rank in rows], schema=COLUMNS)


def _values(row: Row, rank: Rank | None, record: Mapping[str, Any]) -> dict[str, Any]:
    setting, ratio, judged = row.setting, row.setting.ratio, judged_by(row.setting.task)
    found: dict[str, Any] = {
        "setting": setting.id,
        "task": setting.task,
        "backbone": setting.backbone,
        "backbone_sha256": setting.facts["backbone"],
        "imbalance_ratio": None if ratio == NATURAL else ratio,
        "datasets": list(setting.titles),
        "trained_ratio": None if row.own_ratio == NATURAL else row.own_ratio,
        "more_knowledge": row.more,
        "seeds": list(row.seeds),
        "metric": judged,
        "also_in": [again.bundle for again in row.also],
        "also_differs": max((again.largest for again in row.also), default=None),
        "by": record["by"],
        "cpt": record["cpt"],
    }
    for name in ("row", "label", "note", "method", "hyperparameters", "augmentation", "control", "knowledge"):
        found[name] = getattr(row, name)
    for name in ("hours", "device", "parameters", "bundle"):
        found[name] = getattr(row, name)
    for name in MEASURED:
        interval = row.means.get(judged if name == "value" else name, (None, None, None))
        ends = (value if value is not None and math.isfinite(value) else None for value in interval)
        found |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
    if rank is not None:
        found |= dict(zip(("rank_first", "rank_last", "better_than", "worse_than"), rank, strict=True))
    return found


def _cells(values: Sequence[Any]) -> list[Any]:
    """Values of a CSV row: lists with spaces between, and no text that a spreadsheet would take for a formula."""
    return [_text(" ".join(map(str, value))) if isinstance(value, list) else _text(value) for value in values]


def _text(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
