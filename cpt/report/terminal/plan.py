"""The numbers of ``cpt.costs.plan`` as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cpt.report.terminal.console import table

HOUR = 3600


def render(plan: Mapping[str, Any]) -> RenderableType:
    """Return what ``cpt plan`` prints of ``cpt.costs.plan.Plan.numbers``."""
    backbone, costs = plan["backbone"], plan["costs"]
    lines: list[RenderableType] = [
        f"{plan['experiment']}: {backbone['name']}, {backbone['architecture']}; costs: {costs['text']}",
        *(Text(line, style="dim") for line in costs["assumptions"]),
        "",
        _jobs(plan["jobs"]),
        "",
        _exhibits(plan),
    ]
    if costs["basis"] != "none":
        lines += ["", _stages(plan), *_schedule(plan), "", _groups(plan)]
    lines += ["", *_disk(plan["disk"]), _memory(plan)]
    if plan["notes"]:
        lines += ["", *(f"Note: {note}" for note in plan["notes"])]
    return Group(*(Text(line) if isinstance(line, str) else line for line in lines))


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
    shown = _table("job", ">jobs", ">done", "", "job", ">jobs", ">done")
    total = {key: sum(count[key] for count in jobs.values()) for key in ("total", "there")}
    rows = [(rule, f"{count['total']:,}", f"{count['there']:,}") for rule, count in [*jobs.items(), ("total", total)]]
    half = (len(rows) + 1) // 2
    for left, right in zip_longest(rows[:half], rows[half:], fillvalue=("", "", "")):
        shown.add_row(*left, "", *right)
    return shown


def _exhibits(plan: Mapping[str, Any]) -> RenderableType:
    """Runs of every exhibit; each is costed once, in the first exhibit that has it."""
    timed = plan["costs"]["basis"] != "none"
    heads = (">train h", ">test h", ">left h") if timed else ()
    shown = _table("exhibit", ">runs", ">trained", ">to do", ">counted", ">steps", *heads)
    for row in [*plan["exhibits"], plan["total"]]:
        if row is plan["total"]:
            shown.add_section()
        done, runs = row["finished"], row["runs"]
        cells = [row["name"], *(f"{count:,}" for count in (runs, done, runs - done, row["new"]))]
        cells.append(f"{'≥ ' if row['unknown_steps'] else ''}{row['steps']:,}")
        if timed:
            less = row["unknown_seconds"] > 0
            cells += [hours(row[key], less=less) for key in ("train_seconds", "test_seconds", "left_seconds")]
        shown.add_row(*cells)
    notes = [
        f"counted: runs that no exhibit above has{'; steps and hours are theirs' if timed else ', with their steps'}"
    ]
    if timed and plan["frozen_image_seconds"]:
        notes.append(f"beside them frozen image features, once: {hours(plan['frozen_image_seconds'])} h")
    return Group(shown, *(Text(f" {note}", style="dim") for note in notes))


def _stages(plan: Mapping[str, Any]) -> Table:
    columns = {"GPU": "gpu_seconds", "CPU cores": "core_seconds", "one job at a time": "alone_seconds"}
    if not plan["costs"]["card"]:
        columns.pop("GPU")
    shown = _table("still to come, in hours", *(f">{head}" for head in columns))
    total = {"name": "all", **{key: sum(stage[key] for stage in plan["stages"]) for key in columns.values()}}
    for row in [*plan["stages"], total]:
        if row is total:
            shown.add_section()
        shown.add_row(row["name"], *(hours(row[key]) for key in columns.values()))
    return shown


def _schedule(plan: Mapping[str, Any]) -> list[str]:
    """How long all of it takes, by the number of GPUs and of runs that share one."""
    lines = []
    for row in plan["schedule"] if plan["costs"]["card"] else []:
        cards, runs = (f"{row[key]} {key[:-1] if row[key] == 1 else key}" for key in ("cards", "runs"))
        cores = row["runs"] * plan["memory"]["threads"]
        how = f", --resources gpu={row['runs']}" if row["runs"] > 1 else ""
        cards = cards.replace("card", "GPU")
        lines.append(f"{cards}, {runs} at a time on each: {hours(row['seconds'])} h ({cores} CPU cores a GPU{how})")
    return lines


def _groups(plan: Mapping[str, Any]) -> Table:
    groups, about = plan["groups"], "about " if plan["costs"]["basis"] == "stated" else ""
    shown = _table("method", ">batch", ">classes", ">ms a step", ">test images/s", ">GPU memory")
    for row in groups:
        name = f"{row['method']} on {row['start']}" if row["start"] else row["method"]
        steps = [f"{1000 * seconds:.3g}" for seconds in row["step_seconds"] or []]
        images = [f"{1 / seconds:,.0f}" if seconds else "frozen" for seconds in row["image_seconds"] or []]
        memory = "not measured" if row["peak_memory_mb"] is None else f"{about}{row['peak_memory_mb'] / 1024:.1f} GiB"
        ends = (_ends(values) for values in (map(str, row["classes"]), steps, images))
        shown.add_row(name, str(row["batch_size"] or "–"), *ends, memory)
    return shown


def _ends(values: Iterable[str]) -> str:
    """The value of the smallest and that of the largest number of classes."""
    return " – ".join(dict.fromkeys(values)) or "–"


def _disk(disk: Mapping[str, Any]) -> list[str]:
    unknown = disk["downloads_of_unknown_size"]
    least = "at least " if unknown else ""
    files = f"{disk['downloads_files']} files" + (f", {unknown} of unknown size" if unknown else "")
    return [
        f"Disk: {least}{size(disk['needed_bytes'])} to come, {size(disk['free_bytes'])} free here",
        f"  downloads {least}{size(disk['downloads_bytes'])} ({files}), unpacked about the same; the archives go",
        *_weights(disk["weights_download_bytes"], disk["weights_bytes"]),
        f"  image caches {size(disk['pixels_bytes'])}, image features {size(disk['features_bytes'])}, "
        f"runs about {size(disk['runs_bytes'])}",
    ]


def _weights(download: int, export: int) -> list[str]:
    """The pretrained weights that are not there yet."""
    fetched = f"download about {size(download)} into the hub's cache, " if download else ""
    return [f"  weights of CLIP: {fetched}here up to {size(export)}"] if export else []


def _memory(plan: Mapping[str, Any]) -> str:
    memory, peaks = plan["memory"], [row["peak_memory_mb"] for row in plan["groups"] if row["peak_memory_mb"]]
    about = "about" if plan["costs"]["basis"] == "stated" else "at most"
    gpu = f"GPU {about} {max(peaks) / 1024:.1f} GiB a job" if peaks else "GPU not measured"
    if (fit := memory["runs_that_fit"]) is not None:
        modeled = ", by the model" if plan["costs"]["basis"] == "stated" else ""
        gpu += f" and 0.5 GB beside it: {fit} fit one{modeled}"
    decoded = memory["decoded_images_bytes"]
    host = f"; host up to {decoded / 2**30:.0f} GiB of decoded images a training, beside the process" if decoded else ""
    return f"Memory: {gpu}{host}"


def _table(*heads: str) -> Table:
    return table(*heads, box=None, pad_edge=True, header_style="bold")
