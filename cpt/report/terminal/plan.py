"""The numbers of ``cpt.costs.plan`` as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

HOUR = 3600


def render(plan: Mapping[str, Any]) -> RenderableType:
    """Return what ``cpt plan`` prints.

    Args:
        plan: what ``cpt.costs.plan.Plan.numbers`` returned.
    """
    backbone, costs = plan["backbone"], plan["costs"]
    lines: list[RenderableType] = [
        Text(f"{plan['experiment']}: {backbone['name']}, {backbone['architecture']}; costs: {costs['text']}"),
        *(Text(line, style="dim") for line in costs["assumptions"]),
        Text(),
        _jobs(plan["jobs"]),
        Text(),
        _exhibits(plan),
    ]
    if costs["basis"] != "none":
        lines += [Text(), _groups(plan["groups"])]
    lines += [Text(), *map(Text, [*_disk(plan["disk"]), _memory(plan)])]
    if plan["notes"]:
        lines += [Text(), *(Text(f"Note: {note}") for note in plan["notes"])]
    return Group(*lines)


def size(count: float) -> str:
    """Bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit != "GB" else f"{count:.1f} GB"
        count /= 1000
    return f"{count:.2f} TB"


def hours(seconds: float, *, less: bool = False) -> str:
    """Hours to two decimals, from ten on to one; ``less``: something unknown is left out of them."""
    number = seconds / HOUR
    if less:
        return f"≥ {number:,.2f}"
    if 0 < number < 0.005:
        return "< 0.01"
    return f"{number:,.{1 if number >= 10 else 2}f}" if number else "0"


def _jobs(jobs: Mapping[str, Mapping[str, int]]) -> Table:
    """Two rules a line: thirty lines would push the rest off the screen."""
    table = _table("job", ">jobs", ">there", "", "job", ">jobs", ">there")
    total = {key: sum(count[key] for count in jobs.values()) for key in ("total", "there")}
    rows = [(rule, f"{count['total']:,}", f"{count['there']:,}") for rule, count in [*jobs.items(), ("total", total)]]
    half = (len(rows) + 1) // 2
    for left, right in zip_longest(rows[:half], rows[half:], fillvalue=("", "", "")):
        table.add_row(*left, "", *right)
    return table


def _exhibits(plan: Mapping[str, Any]) -> Table:
    timed = plan["costs"]["basis"] != "none"
    heads = (">train h", ">test h", ">left h") if timed else ()
    table = _table("exhibit", ">runs", ">there", ">new", ">steps of new", *heads)
    for row in [*plan["exhibits"], plan["total"]]:
        if row is plan["total"]:
            table.add_section()
        cells = [row["name"], f"{row['runs']:,}", f"{row['finished']:,}", f"{row['new']:,}"]
        cells.append(f"{'≥ ' if row['unknown_steps'] else ''}{row['steps']:,}")
        if timed:
            less = row["unknown_seconds"] > 0
            cells += [hours(row[key], less=less) for key in ("train_seconds", "test_seconds", "left_seconds")]
        table.add_row(*cells)
    if timed and plan["frozen_image_seconds"]:
        table.add_row("frozen image features, once", "", "", "", "", "", hours(plan["frozen_image_seconds"]), "")
    return table


def _groups(groups: list[Mapping[str, Any]]) -> Table:
    table = _table("method", ">batch", ">classes", ">ms a step", ">test images/s", ">GPU memory")
    for row in groups:
        name = f"{row['method']} on {row['start']}" if row["start"] else row["method"]
        table.add_row(
            name,
            str(row["batch_size"] or "–"),
            _ends([str(number) for number in row["classes"]]),
            _ends([f"{1000 * seconds:.3g}" for seconds in row["step_seconds"] or []]),
            _ends([f"{1 / seconds:,.0f}" if seconds else "frozen" for seconds in row["image_seconds"] or []]),
            "not measured" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb'] / 1024:.1f} GiB",
        )
    return table


def _ends(values: list[str]) -> str:
    """The value of the smallest and that of the largest number of classes."""
    return " – ".join(dict.fromkeys(values)) or "–"


def _disk(disk: Mapping[str, Any]) -> list[str]:
    unknown = disk["downloads_of_unknown_size"]
    least = "at least " if unknown else ""
    files = f"{disk['downloads_files']} files" + (f", {unknown} of unknown size" if unknown else "")
    return [
        f"Disk: {least}{size(disk['needed_bytes'])} to come, {size(disk['free_bytes'])} free here",
        f"  downloads {least}{size(disk['downloads_bytes'])} ({files}), unpacked about the same; the archives go",
        f"  image caches {size(disk['pixels_bytes'])}, image features {size(disk['features_bytes'])}, "
        f"runs about {size(disk['runs_bytes'])}",
    ]


def _memory(plan: Mapping[str, Any]) -> str:
    memory, peaks = plan["memory"], [row["peak_memory_mb"] for row in plan["groups"] if row["peak_memory_mb"]]
    gpu = f"GPU at most {max(peaks) / 1024:.1f} GiB a job" if peaks else "GPU not measured"
    decoded = memory["decoded_images_bytes"]
    host = f"; host up to {decoded / 2**30:.0f} GiB of decoded images a training, beside the process" if decoded else ""
    return f"Memory: {gpu}{host}"


def _table(*heads: str) -> Table:
    """A plain table; a head that begins with > is that of a right-aligned column."""
    table = Table(box=None, pad_edge=True, header_style="bold")
    for head in heads:
        table.add_column(head.removeprefix(">"), justify="right" if head.startswith(">") else "left", no_wrap=True)
    return table
