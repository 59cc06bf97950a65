"""The kept results of the experiments that ship, and differences between their rows.

An average is over datasets first, each the mean over its seeds; a difference is paired by dataset and seed.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cpt.errors import CptError
from cpt.experiment import config, grid
from cpt.files.stage_files import write_json
from cpt.report import tables
from cpt.report.formats import md
from cpt.report.layout import Key
from cpt.results import stats
from cpt.results.cells import Results, SeedValues, averaged_datasets, read_results, row_names, shared

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs/results"
CONFIGS = {
    "embedded": "config/config.yaml",
    "embedded_other_cpu": "config/config.yaml",
    "ablation": "config/ablation.yaml",
    "pilot": "config/pilot.yaml",
    "effort": "config/effort.yaml",
    "tip_adapter": "config/tip_adapter.yaml",
    "embedded_full": "config/embedded_full.yaml",
}
WORLDS = {
    "worlds_first_s0": "config/worlds.yaml",
    "worlds_first_s1": "config/worlds/first_s1.yaml",
    "worlds_first_s2": "config/worlds/first_s2.yaml",
    "worlds_second_s0": "config/worlds/second_s0.yaml",
    "worlds_second_s1": "config/worlds/second_s1.yaml",
    "worlds_second_s2": "config/worlds/second_s2.yaml",
}
"""Three models of each generated world."""
CONFIGS |= WORLDS


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
    return tables.long_form(kept(experiment), kept(experiment).exhibit(name))


def cell(experiment: str, table: str, ratio: float, row: str, metric: str = "H", dataset: str = "Avg") -> float:
    """One number of a table.

    Raises:
        CptError: the kept results lack it, because the configuration has changed since.
    """
    found = numbers(experiment, table).get(Key(ratio, row, dataset, metric))
    if found is None or found.mean is None:
        raise CptError(f"docs/results/{experiment}.parquet: no {metric} of {row}, run the experiment and --keep it")
    return found.mean


def shown(experiment: str, name: str) -> str:
    """A table as the report shows it."""
    results = kept(experiment)
    exhibit = results.exhibit(name)
    return "\n" + md.write(tables.laid_out(results, exhibit, numbers(experiment, name))).strip() + "\n"


def label(experiment: str, table: str, row: str) -> str:
    """A row's name, as figures have it."""
    return row_names(kept(experiment).exhibit(table)["rows"])[row]


def by_dataset(experiment: str, table: str, ratio: float, row: str, task: str = "base_to_new") -> dict[str, SeedValues]:
    """What a table's row is judged by: dataset -> value per seed, without the source of a transfer task."""
    results = kept(experiment)
    exhibit = results.exhibit(table)
    averaged = averaged_datasets(exhibit, task)
    return {
        cell["dataset"]: results.seeds(cell)
        for cell in exhibit["cells"]
        if (cell["row"], cell["ratio"], cell["task"]) == (row, ratio, task) and cell["dataset"] in averaged
    }


def differences(first: Mapping[str, SeedValues], second: Mapping[str, SeedValues]) -> list[float]:
    """First minus second, one number per dataset: the mean over the seeds that both have on all datasets.

    A row that is not trained has no seeds: it is compared with every seed of the other.

    Raises:
        CptError: there is no such seed.
    """
    sides = [dict(first), dict(second)]
    for own, other in (sides, sides[::-1]):
        for dataset, values in own.items():
            if set(values) == {0}:
                own[dataset] = dict.fromkeys(other[dataset], values[0])
    seeds = shared([values for side in sides for values in side.values()])
    if not seeds:
        raise CptError("docs/results: no seed that both rows have on all datasets; run the experiment and --keep it")
    one, two = sides
    return [statistics.fmean(one[dataset][seed] - two[dataset][seed] for seed in seeds) for dataset in one]


class Difference(NamedTuple):
    """Mean over datasets, 95 % t interval, datasets on which it is above zero, datasets, p of flipping signs."""

    mean: float
    low: float
    high: float
    higher: int
    datasets: int
    p: float


def compared(values: Sequence[float]) -> Difference:
    """Summarize one difference per dataset."""
    p = stats.sign_flip_test(values, np.random.default_rng(0))
    return Difference(*stats.t_interval(values), sum(value > 0 for value in values), len(values), p)


def paired(experiment: str, table: str, ratio: float, row: str, other: str, task: str = "base_to_new") -> Difference:
    """A row of a table minus another one, paired by dataset and seed."""
    return compared(differences(*(by_dataset(experiment, table, ratio, name, task) for name in (row, other))))


def holm(found: Sequence[Difference]) -> list[float]:
    """Corrected p of a family of differences."""
    return [float(p) for p in stats.holm([difference.p for difference in found])]


def difference_table(named: Mapping[tuple[str, ...], Difference], heads: Sequence[str], family: int = 0) -> str:
    """Differences as Markdown; p corrected by Holm's method over lines that share their first ``family`` cells."""
    lines = [
        f"| {' | '.join(heads)} | mean | 95 % interval | higher on | p | corrected p |",
        "|" + ":--|" * len(heads) + "--:|--:|--:|--:|--:|",
    ]
    families: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for names in named:
        families.setdefault(names[:family], []).append(names)
    corrected: dict[tuple[str, ...], float] = {}
    for lines_of_family in families.values():
        corrected |= dict(zip(lines_of_family, holm([named[names] for names in lines_of_family]), strict=True))
    for names, d in named.items():
        cells = [*names, f"{d.mean:+.2f}", f"{d.low:+.2f} to {d.high:+.2f}", f"{d.higher} of {d.datasets}"]
        lines.append(f"| {' | '.join(cells)} | {d.p:.3f} | {corrected[names]:.3f} |")
    return markdown(lines)


def markdown(lines: Sequence[str]) -> str:
    """Lines of Markdown between a place's marks."""
    return "\n" + "\n".join(lines) + "\n"
