"""The board's tables: one per setting, its rows ranked among each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from cpt.files.paths import NATURAL, ratio_order
from cpt.metrics.reported import MEASURES
from cpt.report.board.rows import Again, Bounds, Row, Setting, measures
from cpt.report.layout import DECIMALS, can_differ
from cpt.report.shown import Block, Column, Line, Shown, Table
from cpt.report.words import MISSING, SIGNIFICANCE_LEVEL, counted, ratio_title
from cpt.results.cells import TASKS, judged_by
from cpt.results.ranks import Rank, ranks


@dataclass(frozen=True)
class Ranked:
    """A setting and its rows, best mean first, with their ranks; controls and rows without a mean are last, without."""

    setting: Setting
    rows: list[tuple[Row, Rank | None]]


@dataclass(frozen=True)
class ShownSetting:
    """A setting as the page shows it: what one filters by, its heading, its table, and what stands below."""

    id: str
    protocol: str
    backbone: str
    ratio: str
    heading: str
    table: Table
    notes: list[str]


def in_settings(rows: Sequence[Row]) -> list[Ranked]:
    """Return the rows by setting: tasks as the project orders them, then backbones, balanced before long tails.

    Rows of two settings are never compared.
    """
    order = list(TASKS)

    def place(row: Row) -> tuple[int, str, float, int, str]:
        setting = row.setting
        sizes = -len(setting.titles)
        return order.index(setting.task), setting.backbone, ratio_order(setting.ratio), sizes, setting.id

    return [_ranked(list(found)) for _, found in groupby(sorted(rows, key=place), key=place)]


def _ranked(rows: Sequence[Row]) -> Ranked:
    judged = judged_by(rows[0].setting.task)
    ordered = sorted(rows, key=lambda row: (not row.ranked, -_mean(row, judged)))
    known = [row for row in ordered if row.ranked]
    found = iter(ranks([row.numbers for row in known], [row.more for row in known], SIGNIFICANCE_LEVEL))
    return Ranked(rows[0].setting, [(row, next(found) if row.ranked else None) for row in ordered])


def _mean(row: Row, name: str) -> float:
    return row.means[name].estimate if name in row.means else -math.inf


def shown(found: Ranked, position: int, bundles: Mapping[str, int]) -> ShownSetting:
    """Return a setting as the page shows it.

    Args:
        found: the setting.
        position: of the setting on the page, from 1.
        bundles: name -> position of the bundle on the page.
    """
    setting, rows = found.setting, found.rows
    told = [name for name in measures(setting.task) if any(name in row.means for row, _ in rows)]
    columns = [
        Column("Rank", plain=True),
        *(Column(MEASURES[name].of(setting.task).title if name in MEASURES else name) for name in told),
        Column("Seeds", plain=True),
        Column("Text knowledge", text=True, plain=True),
        Column("Hours", plain=True),
        Column("Learned values", plain=True),
        Column("Settings", text=True, plain=True),
        Column("Bundle", text=True, plain=True),
    ]
    lines = [Line(row.label, _note(row), _cells(row, rank, told, bundles)) for row, rank in rows]
    protocol, datasets = TASKS[setting.task].capitalize(), counted(len(setting.titles), "dataset")
    heading = f"{protocol}, {setting.backbone}, {ratio_title(setting.ratio)}, {datasets}"
    table = Table("board", f"setting-{position}", "", heading, "", "", "Method", columns, [Block("", lines)])
    ratio = ratio_title(setting.ratio).removeprefix("τ = ")
    return ShownSetting(f"setting-{position}", protocol, setting.backbone, ratio, heading, table, _notes(found))


def _note(row: Row) -> str | None:
    return ", ".join(filter(None, [row.note, "more knowledge" if row.more else ""])) or None


def _cells(row: Row, rank: Rank | None, told: Sequence[str], bundles: Mapping[str, int]) -> list[Shown]:
    place = MISSING if rank is None else f"{rank.first}" + ("" if rank.first == rank.last else f"–{rank.last}")
    order = None if rank is None else rank.first + rank.last / 1e4
    also = f" +{len(row.also)}" if row.also else ""
    return [
        Shown(place, order=order),
        *(_number(row.means.get(name)) for name in told),
        Shown(str(len(row.seeds)), order=len(row.seeds)),
        Shown(row.knowledge),
        Shown("< 0.001" if row.hours < 0.001 else f"{row.hours:.2g}", order=row.hours),
        Shown(f"{row.parameters:,}", order=row.parameters),
        Shown(f"{row.method}-{row.hyperparameters}"),
        Shown(f"{row.bundle}{also}", href=f"#bundle-{bundles[row.bundle]}"),
    ]


def _number(interval: Bounds | None) -> Shown:
    if interval is None:
        return Shown(MISSING)
    half = None if math.isnan(interval.high) else f"{interval.high - interval.estimate:.{DECIMALS}f}"
    return Shown(f"{interval.estimate:.{DECIMALS}f}", half, order=interval.estimate)


def _notes(found: Ranked) -> list[str]:
    setting, ranked = found.setting, sum(rank is not None for _, rank in found.rows)
    drawn = sorted({(n_max, order) for _, n_max, order in setting.facts["drawn"]})
    images = " or ".join(f"at most {n_max} images per class, classes in the order “{order}”" for n_max, order in drawn)
    pairs, datasets = ranked * (ranked - 1) // 2, len(setting.titles)
    least = min(1.0, pairs * 2.0 ** (1 - datasets))
    power = f"{counted(pairs, 'pair')} tested"
    if pairs and not can_differ(datasets, pairs):
        few = f"{counted(datasets, 'dataset')} {'is' if datasets == 1 else 'are'} too few"
        power += f": {few} to tell any two of {ranked} rows apart (smallest possible corrected p: {least:.2g})"
    return [
        f"Mean over {', '.join(setting.titles.values())}, on their {setting.facts['part']} images.",
        "Trained on all training images." if setting.ratio == NATURAL else f"Trained on {images}.",
        f"{power}.",
        *_also([row for row, _ in found.rows]),
        f"Setting {setting.id}.",
    ]


def _also(rows: Sequence[Row]) -> list[str]:
    """A sentence per bundle that has rows which are shown from another one."""
    found: dict[str, list[tuple[Row, Again]]] = {}
    for row in rows:
        for again in row.also:
            found.setdefault(again.bundle, []).append((row, again))
    return [f"{bundle} has {counted(len(pairs), 'row')} too: {_compared(pairs)}." for bundle, pairs in found.items()]


def _compared(pairs: Sequence[tuple[Row, Again]]) -> str:
    numbers = sum(again.numbers for _, again in pairs)
    differ = [(row.label, again.largest) for row, again in pairs if round(again.largest, DECIMALS) > 0]
    if not numbers:
        return "of other seeds"
    if not differ:
        return f"all {numbers} numbers equal"
    return f"of {numbers} numbers differ " + ", ".join(f"{label} by up to {largest:.2f}" for label, largest in differ)
