"""Write every number that a run or a measurement gave into the documents, from what is kept in docs/results.

python docs/write_numbers.py                               write README.md and docs/*.md anew
python docs/write_numbers.py --check                       only name the documents that have drifted; exit code 1
python docs/write_numbers.py --keep results/embedded       keep a finished experiment's runs.parquet first
python docs/write_numbers.py --keep results/benchmarks     or bench.parquet
python docs/write_numbers.py --against results/embedded    does a fresh run say what the kept one says?

A place in a document is <!-- =NAME -->what is replaced<!-- / -->; NAME is a key of NUMBERS below.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import rows  # noqa: E402
from cpt import config, grid  # noqa: E402
from cpt.data.classes import GROUPS  # noqa: E402
from cpt.errors import CptError, nearest  # noqa: E402
from cpt.files import read_parquet, write_json  # noqa: E402
from cpt.paths import RUNS  # noqa: E402
from cpt.plan import Plan  # noqa: E402
from cpt.report import formats, tables  # noqa: E402
from cpt.report.results import Results, read_results  # noqa: E402

KEPT = ROOT / "docs/results"
CONFIGS = {"embedded": "config/config.yaml", "embedded_full": "config/embedded_full.yaml", "pilot": "config/pilot.yaml"}
PLACE = re.compile(r"(<!-- =(\w+) -->)(.*?)(<!-- / -->)", re.DOTALL)
TOLERANCE = 2.0
"""Points that a table's cell may differ by on another kind of processor: other last bits, other predictions."""

AVERAGES = (("table2", "base"), ("table2", "new"), ("table2", "H"), ("table3", "accuracy"), ("table4", "accuracy"))
TITLES = ("base", "new", "H", "cross-dataset", "domain generalisation")


def read(experiment: str, runs: Path) -> Results:
    """The results of an experiment that ships, its grid resolved from the configuration as it is now."""
    with tempfile.TemporaryDirectory() as folder:
        resolved = grid.build(config.load([ROOT / CONFIGS[experiment]]), CONFIGS[experiment])
        write_json(Path(folder) / "grid.json", resolved.as_json())
        return read_results(Path(folder) / "grid.json", runs)


@cache
def kept(experiment: str) -> Results:
    """The kept results of an experiment."""
    return read(experiment, KEPT / f"{experiment}.parquet")


@cache
def numbers(experiment: str, name: str) -> tables.LongForm:
    """Every number of a table of the kept results."""
    return tables.long_form(kept(experiment), tables.table_exhibit(kept(experiment), name))


def cell(experiment: str, table: str, ratio: float, row: str, metric: str = "H", dataset: str = "Avg") -> float:
    """One number of a table.

    Raises:
        CptError: the kept results lack it, because the configuration has changed since.
    """
    found = numbers(experiment, table).get(tables.Key(ratio, row, dataset, metric))
    if found is None or found.mean is None:
        raise CptError(f"docs/results/{experiment}.parquet: no {metric} of {row}, run the experiment and --keep it")
    return found.mean


def shown(experiment: str, name: str) -> str:
    """A table as the report shows it."""
    results = kept(experiment)
    exhibit = tables.table_exhibit(results, name)
    return "\n" + formats.markdown(tables.layout(results, exhibit, numbers(experiment, name))).strip() + "\n"


def averages() -> str:
    """One row per imbalance ratio and method of the full grid: averages over the datasets, mean over seeds."""
    lines = [f"| τ | method | {' | '.join(TITLES)} |", "|--:|:--" + "|--:" * len(TITLES) + "|"]
    seeds, found = set(), {}
    for table, metric in AVERAGES:
        labels = {row["id"]: row["label"] for row in kept("embedded_full").exhibit(table)["rows"]}
        for key, number in numbers("embedded_full", table).items():
            if (key.dataset, key.metric) == ("Avg", metric) and number.mean is not None:
                spread = "" if number.std is None else f" ± {number.std:.2f}"
                found.setdefault((key.ratio, labels[key.row]), {})[table, metric] = f"{number.mean:.2f}{spread}"
                seeds.add(number.n)
    for (ratio, label), by_metric in sorted(found.items(), key=lambda item: -item[0][0]):
        lines.append(f"| {ratio:g} | {label} | {' | '.join(by_metric.get(each, '–') for each in AVERAGES)} |")
    return "\n" + "\n".join(lines) + f"\n\nSeeds per row: {', '.join(map(str, sorted(seeds)))}.\n"


def paired(experiment: str, ratio: float, row: str, other: str) -> tuple[float, float, int, int]:
    """Mean and standard error over datasets of the difference of H (seeds averaged), datasets won, datasets."""
    exhibit = kept(experiment).exhibit("table2")
    datasets = [c["dataset"] for c in exhibit["cells"] if (c["row"], c["ratio"]) == (row, ratio)]
    differences = [
        cell(experiment, "table2", ratio, row, dataset=d) - cell(experiment, "table2", ratio, other, dataset=d)
        for d in datasets
    ]
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return statistics.fmean(differences), error, sum(d > 0 for d in differences), len(differences)


def difference(experiment: str, ratio: float, row: str, other: str) -> Callable[[], str]:
    """A paired difference as text."""

    def text() -> str:
        mean, error, won, of = paired(experiment, ratio, row, other)
        return f"{mean:+.2f} ± {error:.2f} (higher on {won} of {of} datasets)"

    return text


def groups() -> str:
    """Base accuracy by head, medium and tail classes at τ = 0.06, averaged over datasets and seeds."""
    table, _ = read_parquet(KEPT / "embedded_full.parquet", RUNS)
    runs = table.to_pandas().query("epoch.isna() and subset == 'base' and target == dataset")
    exhibit = kept("embedded_full").exhibit("table2")
    lines = ["| method | head | medium | tail |", "|:--|--:|--:|--:|"]
    for row in exhibit["rows"]:
        names = [r for c in exhibit["cells"] if (c["row"], c["ratio"]) == (row["id"], 0.06) for r in c["runs"]]
        means = runs[runs["run"].isin(names)].groupby("metric")["value"].mean()
        shares = " | ".join(f"{means[f'{group}_accuracy']:.1f}" for group in GROUPS)
        lines.append(f"| {row['label']} | {shares} |")
    return "\n" + "\n".join(lines) + "\n"


def base_to_new(row: str) -> float:
    """Average H of a row of the default experiment's Table 1."""
    return cell("embedded", "table1", 0.06, row, dataset="base-to-new")


@cache
def bench() -> list[rows.Row]:
    """The kept measurements."""
    return rows.read(KEPT / "bench.parquet")


def measured(name: str, beginning: str) -> rows.Row:
    """The measurement of a line whose description begins so."""
    return next(row for row in bench() if row.name == name and row.what.startswith(beginning))


def share(row: rows.Row) -> str:
    """How close a measurement comes to its limit."""
    limit = rows.limit(row)
    assert limit is not None
    return f"{100 * limit / row.ours:.0f} %"


@cache
def planned() -> dict[str, Any]:
    """What ``cpt plan config/paper.yaml`` says where nothing is there yet."""
    resolved = grid.build(config.load([ROOT / "config/paper.yaml"]), "config/paper.yaml")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return Plan(resolved, "auto", "auto").numbers()


def jobs() -> str:
    """Jobs of the paper's grid by rule."""
    counts = {rule: count["total"] for rule, count in planned()["jobs"].items()}
    named = [rule for rule in counts if counts[rule] > 5]
    head = [*named, "others", "total"]
    total = sum(counts.values())
    row = [*(counts[rule] for rule in named), total - sum(counts[rule] for rule in named), total]
    lines = ["| " + " | ".join(head) + " |", "|" + "--:|" * len(head), "| " + " | ".join(f"{n:,}" for n in row) + " |"]
    return "\n" + "\n".join(lines) + "\n"


def total(name: str) -> float:
    """A number of the paper's plan."""
    return planned()["total"][name]


NUMBERS: dict[str, Callable[[], str]] = {
    "embedded_table1": lambda: shown("embedded", "table1"),
    "embedded_table2": lambda: shown("embedded", "table2"),
    "embedded_sum": lambda: f"{base_to_new('ivlp') - base_to_new('cpt_printed'):.1f}",
    "pilot_table2": lambda: shown("pilot", "table2"),
    "pilot_table3": lambda: shown("pilot", "table3"),
    "full_averages": averages,
    "full_groups": groups,
    "full_cpt_ivlp_1": difference("embedded_full", 1.0, "cpt", "ivlp"),
    "full_cpt_ivlp_006": difference("embedded_full", 0.06, "cpt", "ivlp"),
    "full_promptsrc_cpt_006": difference("embedded_full", 0.06, "promptsrc", "cpt"),
    "full_la_ivlp": difference("embedded_full", 0.06, "ivlp_la", "ivlp"),
    "full_la_cpt": difference("embedded_full", 0.06, "cpt_la", "cpt"),
    "bench": lambda: "\n" + rows.markdown(bench()),
    "whole": lambda: f"{measured('whole', 'embedded').ours / 60:.0f}",
    "embedded_share": lambda: share(measured("embedded", "training step")),
    "embedded_batch": lambda: f"{measured('embedded', 'one step').ratio:.2f}",
    "plan_jobs": jobs,
    "plan_steps": lambda: f"{total('steps') / 1e6:.1f}",
    "plan_hours": lambda: f"{(total('train_seconds') + total('test_seconds')) / 3600:.0f}",
    "plan_pixels": lambda: f"{planned()['disk']['pixels_bytes'] / 1e9:.0f}",
    "plan_runs": lambda: f"{planned()['disk']['runs_bytes'] / 1e9:.0f}",
}


def documents() -> list[Path]:
    """Documents that may have places for numbers."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def written(document: Path) -> str:
    """The document with its numbers as they should be.

    Raises:
        CptError: it names a number that NUMBERS lacks, or kept results lack what it needs.
    """

    def replaced(place: re.Match[str]) -> str:
        if place[2] not in NUMBERS:
            raise CptError(f"{document}: unknown number {place[2]!r}; {nearest(place[2], NUMBERS)}")
        return f"{place[1]}{NUMBERS[place[2]]()}{place[4]}"

    return PLACE.sub(replaced, document.read_text(encoding="utf-8"))


def keep(folder: Path) -> None:
    """Copy a finished experiment's runs.parquet, or bench.parquet, to docs/results."""
    found = folder / rows.PARQUET
    if found.is_file():
        shutil.copy(found, KEPT / rows.PARQUET)
    elif folder.name in CONFIGS and (folder / "runs.parquet").is_file():
        shutil.copy(folder / "runs.parquet", KEPT / f"{folder.name}.parquet")
    else:
        raise CptError(f"{folder}: neither {rows.PARQUET} nor runs.parquet of {', '.join(CONFIGS)}")


def compare(folder: Path) -> float:
    """Print and return the largest difference of a table's cell between a fresh run and the kept one, in points."""
    fresh, largest = read(folder.name, folder / "runs.parquet"), (0.0, "none")
    for name, exhibit in fresh.grid["exhibits"].items():
        if exhibit["kind"] == "table":
            new, old = tables.long_form(fresh, exhibit), numbers(folder.name, name)
            for key, number in new.items():
                if (number.n, number.mean is None) != (old[key].n, old[key].mean is None):
                    raise CptError(f"{folder}: {name}, {key.row} on {key.dataset}: {number.n} seeds, kept {old[key].n}")
                if number.mean is not None:
                    largest = max(largest, (abs(number.mean - old[key].mean), f"{name}, {key.row} on {key.dataset}"))
    print(f"{folder} and {KEPT.name}/{folder.name}.parquet: largest difference {largest[0]:.2f} points ({largest[1]})")
    return largest[0]


def main(words: list[str] | None = None) -> int:
    """Write, check or compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", type=Path, action="append", default=[], metavar="FOLDER")
    parser.add_argument("--against", type=Path, metavar="FOLDER")
    given = parser.parse_args(words)
    try:
        if given.against:
            return int(compare(given.against) > TOLERANCE)
        for folder in given.keep:
            keep(folder)
        drifted = [path for path in documents() if written(path) != path.read_text(encoding="utf-8")]
    except CptError as error:
        print(f"write_numbers: error: {error}", file=sys.stderr)
        return 1
    for path in drifted:
        if given.check:
            print(f"{path.relative_to(ROOT)}: numbers differ from docs/results; run python docs/write_numbers.py")
        else:
            path.write_text(written(path), encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return int(given.check and bool(drifted))


if __name__ == "__main__":
    sys.exit(main())
