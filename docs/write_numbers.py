"""Write measured numbers into the documents, from the results kept in docs/results.

python docs/write_numbers.py                               write README.md and docs/*.md anew
python docs/write_numbers.py --check                       only list documents whose numbers differ; then exit code 1
python docs/write_numbers.py --keep results/embedded       keep a finished experiment's runs.parquet first
python docs/write_numbers.py --keep results/benchmarks     or bench.parquet
python docs/write_numbers.py --against results/embedded    compare a fresh run with the kept one
python docs/write_numbers.py --other-cpu results/embedded  keep the default run of another kind of CPU

A number in a document stands between <!-- =NAME --> and <!-- / -->; NAME is a key of NUMBERS below.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import rows  # noqa: E402
from benchmarks.precision import RATIO  # noqa: E402
from cpt.costs.plan import Plan  # noqa: E402
from cpt.errors import CptError, nearest  # noqa: E402
from cpt.experiment import config, grid  # noqa: E402
from cpt.methods.base import registry  # noqa: E402
from cpt.report.printed.published import read_published  # noqa: E402
from docs import choices, effort, measured, modeled  # noqa: E402
from docs.kept import CONFIGS, KEPT, read, shown  # noqa: E402

PLACE = re.compile(r"(<!-- =(\w+) -->)(.*?)(<!-- / -->)", re.DOTALL)
LINES = re.compile(r"( *# =(\w+)\n)(.*?)( *# /\n)", re.DOTALL)
"""A place in a configuration: whole lines."""
TOLERANCE = 1.0
"""Points that a table's cell may differ by on another kind of CPU; README.md has the differences measured."""


@cache
def bench() -> list[rows.Row]:
    """The kept measurements."""
    return rows.read(KEPT / "bench.parquet")


def benchmark(name: str, beginning: str) -> rows.Row:
    """The measurement whose description starts with ``beginning``."""
    return next(row for row in bench() if row.name == name and row.what.startswith(beginning))


def share(row: rows.Row) -> str:
    """How close a measurement comes to its limit."""
    limit = rows.limit(row)
    assert limit is not None
    return f"{100 * limit / row.ours:.0f} %"


@contextlib.contextmanager
def nowhere() -> Iterator[None]:
    """A working directory in which nothing exists yet."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield


@cache
def plan(configuration: str = "config/paper.yaml") -> Plan:
    """The plan of an experiment, for four GPUs."""
    resolved = grid.build(config.load([ROOT / configuration]), configuration)
    with nowhere():
        return Plan(resolved, "auto", "auto", cards=4)


@cache
def planned(configuration: str = "config/paper.yaml") -> dict[str, Any]:
    """Numbers of ``cpt plan`` when nothing exists yet."""
    made = plan(configuration)
    with nowhere():
        return made.numbers()


def jobs() -> str:
    """Jobs of the paper's grid by rule."""
    counts = {rule: count["total"] for rule, count in planned()["jobs"].items()}
    named = [rule for rule in counts if counts[rule] > 5]
    head = [*named, "others", "total"]
    total = sum(counts.values())
    row = [*(counts[rule] for rule in named), total - sum(counts[rule] for rule in named), total]
    lines = ["| " + " | ".join(head) + " |", "|" + "--:|" * len(head), "| " + " | ".join(f"{n:,}" for n in row) + " |"]
    return "\n" + "\n".join(lines) + "\n"


def operators() -> str:
    """Operators of every method's step, as kept by ``python -m benchmarks.operators``."""
    kept = json.loads((KEPT / "operators.json").read_text())
    names = sorted(kept["bfloat16"], key=kept["bfloat16"].__getitem__)
    lines = [f"| operators of a step | {' | '.join(names)} |", "|:--|" + "--:|" * len(names)]
    lines += [f"| {dtype} | {' | '.join(f'{counts[name]:,}' for name in names)} |" for dtype, counts in kept.items()]
    return "\n" + "\n".join(lines) + "\n"


def goal_operators() -> str:
    """Operators of the methods that have a goal."""
    counts = json.loads((KEPT / "operators.json").read_text())["bfloat16"]
    return ", ".join(f"{counts[name]:,}" for name in ("ivlp", "cpt", "maple", "promptsrc", "lamp"))


@cache
def rewrite() -> dict[str, Any]:
    """The comparison with the code before the rewrite of a step, as kept by ``python -m benchmarks.rewrite``."""
    return json.loads((KEPT / "rewrite.json").read_text())


def rewrite_gradients() -> str:
    """Largest differences of CPT's step."""
    kept = rewrite()
    return (
        f"gradients of CPT's step differ by at most {kept['gradients']:.0e} of the largest one of a tensor, text "
        f"features by {kept['text']:.0e}"
    )


def rewrite_seconds() -> str:
    """Ratios of CPU seconds by number of classes."""
    found = [f"{times['ratio']:.2f} (K = {count})" for count, times in rewrite()["seconds"].items()]
    return f"{', '.join(found[:-1])} and {found[-1]}"


def precision() -> str:
    """Half precision against float32, as kept by ``python -m benchmarks.precision``."""
    kept = json.loads((KEPT / "precision.json").read_text())
    lines = ["| dataset | method | float32 | bfloat16 | equal | float16 | equal |", "|:--|:--|--:|--:|--:|--:|--:|"]
    for dataset, methods in kept.items():
        for method, found in methods.items():
            cells = []
            for name, values in found.items():
                cells.append(f"{values['base']:.2f} / {values['new']:.2f}")
                cells += [] if name == "float32" else [f"{values['equal']:.1f} %"]
            lines.append(f"| {dataset} | {method} | {' | '.join(cells)} |")
    return "\n" + "\n".join(lines) + "\n"


def gpu() -> str:
    """Steps measured on a GPU, as kept by ``make gpu-check``."""
    path = KEPT / "gpu.json"
    if not path.is_file():
        # a line that begins with a mark is HTML on GitHub
        return "\n**`make gpu-check` has not been run on a GPU yet.**\n"
    rows = json.loads(path.read_text())
    card = next(row["gpu"] for row in rows if row["what"] == "versions")
    lines = [f"On one {card}, ms a step with 4 images:", ""]
    lines += ["| method | classes | how | ms | MiB |", "|:--|--:|:--|--:|--:|"]
    lines += [
        f"| {row['what']} | {row['classes']} | {row['how']} | {row['ms']:.2f} | {row['memory_mb']:,.0f} |"
        for row in rows
        if row["part"] == "steps" and "ms" in row
    ]
    return "\n" + "\n".join(lines) + "\n"


def published(heads: str, *metrics: str) -> str:
    """Published zero-shot accuracies of config/published.csv: a line per dataset that has all of the metrics."""
    printed = read_published(ROOT / "config/published.csv")
    lines: dict[str, dict[str, float]] = {}
    for line in printed[printed["group"] == "zeroshot"].itertuples():
        lines.setdefault(line.dataset, {})[line.metric] = line.value
    rows = [
        f"| {' | '.join([name, *(f'{own[m]:.2f}' for m in metrics)])} |"
        for name, own in lines.items()
        if own.keys() >= {*metrics}
    ]
    return "\n" + "\n".join([heads, "|---" * (1 + len(metrics)) + "|", *rows]) + "\n"


def frozen_images() -> str:
    """Test images of the paper's grid that are judged by frozen features, of all."""
    configuration = "config/paper.yaml"
    resolved = grid.build(config.load([ROOT / configuration]), configuration)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        datasets = Plan(resolved, "auto", "auto").known
    images = {True: 0, False: 0}
    for run in resolved.runs.values():
        hp: Any = run.hyperparameters
        passes = 1 + (hp.epochs if getattr(hp, "snapshots", False) else 0)
        tested = sum(datasets[name].images["test"] for name in {name for name, _ in run.targets})
        images[registry.get(run.method).prompts_images] += passes * tested
    return f"{images[False] / 1e6:.1f} of {sum(images.values()) / 1e6:.1f} million"


def total(name: str) -> float:
    """A number of the paper's plan."""
    return planned()["total"][name]


NUMBERS: dict[str, Callable[[], str]] = {
    "embedded_table1": lambda: shown("embedded", "table1"),
    "embedded_table2": lambda: shown("embedded", "table2"),
    "ablation_table1": lambda: shown("ablation", "table1"),
    "pilot_table2": lambda: shown("pilot", "table2"),
    "pilot_table3": lambda: shown("pilot", "table3"),
    "pilot_differences": choices.pilot_differences,
    "pilot_verdict": choices.pilot_verdict,
    "pilot_pairs_unit": choices.reading("pairs_unit"),
    "pilot_pairs_raw": choices.reading("pairs_raw"),
    "pilot_sum_unit": choices.reading("sum_unit"),
    "effort": effort.outcome,
    "effort_edges": effort.edges,
    "effort_methods": lambda: f"{len(effort.tuned())}",
    "effort_grid": effort.grid,
    "effort_rows": effort.rows,
    "effort_caches": effort.caches,
    "equal_effort": effort.overrides,
    "embedded_averages": measured.averages("embedded"),
    "embedded_profiles": measured.profiles("embedded", 0.06),
    "embedded_below": measured.below("embedded", 0.06),
    "embedded_differences": measured.against("embedded", "table2", "cpt", (1.0, 0.06)),
    "full_averages": measured.averages("embedded_full"),
    "full_differences": measured.against("embedded_full", "table2", "cpt", (1.0, 0.25, 0.06)),
    "full_beyond": measured.beyond("embedded_full", "table2", "cpt", (1.0, 0.25, 0.06)),
    "full_prior": measured.pairs(
        "embedded_full", "table2", (("ivlp_la", "ivlp"), ("cpt_la", "cpt")), (1.0, 0.25, 0.06)
    ),
    "full_transfer": measured.against("embedded_full", "table3", "zeroshot", (0.06,), "cross_dataset"),
    "full_profiles": measured.profiles("embedded_full", 0.06),
    "full_below": measured.below("embedded_full", 0.06),
    "every_averages": measured.averages("embedded_full", "table10", "table12", "table13"),
    "every_differences": measured.against("embedded_full", "table10", "cpt", (0.06,)),
    "every_beyond": measured.beyond("embedded_full", "table10", "cpt", (0.06,)),
    "every_profiles": measured.profiles("embedded_full", 0.06, "table14"),
    "remedies": measured.remedies("embedded_full", "table15", 0.06),
    "remedies_profiles": measured.profiles("embedded_full", 0.06, "table16"),
    "ablation_differences": measured.against("ablation", "table1", "ivlp", (0.06,)),
    "other_cpu": measured.other_cpu,
    "worlds": measured.worlds,
    "bench": lambda: "\n" + rows.markdown(bench()),
    "operators": operators,
    "goal_operators": goal_operators,
    "rewrite_gradients": rewrite_gradients,
    "rewrite_seconds": rewrite_seconds,
    "precision": precision,
    "precision_ratio": lambda: f"{RATIO:g}",
    "gpu": gpu,
    "whole_seconds": lambda: f"{benchmark('whole', 'embedded').ours:.0f}",
    "whole": lambda: f"{benchmark('whole', 'embedded').ours / 60:.0f}",
    "embedded_share": lambda: share(benchmark("embedded", "training step")),
    "embedded_batch": lambda: f"{benchmark('embedded', 'one step').ratio:.2f}",
    "published_zeroshot": lambda: published("| dataset | base | new | H |", "base", "new", "H"),
    "published_shifts": lambda: published("| dataset, all classes | accuracy |", "accuracy"),
    "frozen_images": frozen_images,
    "plan_jobs": jobs,
    "plan_steps": lambda: f"{total('steps') / 1e6:.1f}",
    "plan_stages": lambda: modeled.stages(planned()),
    "plan_schedule": lambda: modeled.schedule(planned()),
    "plan_alone": lambda: modeled.hours_of(planned(), 1, 1),
    "plan_shared": lambda: modeled.hours_of(planned(), 1, 3),
    "plan_four": lambda: modeled.hours_of(planned(), 4, 3),
    "plan_large": lambda: modeled.large(plan(), 500),
    "plan_fit": lambda: f"{planned()['memory']['runs_that_fit']}",
    "plan_gpu_steps": modeled.steps,
    "zeroshot_downloads": lambda: f"{planned('config/zeroshot.yaml')['disk']['downloads_bytes'] // 10**9}",
    "plan_pixels": lambda: f"{planned()['disk']['pixels_bytes'] / 1e9:.0f}",
    "plan_runs": lambda: f"{planned()['disk']['runs_bytes'] / 1e9:.0f}",
}


def documents() -> list[Path]:
    """Files that may have places for numbers; first the configurations, from which those of the documents come."""
    return [
        ROOT / CONFIGS["effort"],
        ROOT / "config/config.yaml",
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]


def written(document: Path) -> str:
    """The document with its numbers written anew.

    Raises:
        CptError: it names a number that NUMBERS lacks, or kept results lack what it needs.
    """

    def replaced(place: re.Match[str]) -> str:
        if place[2] not in NUMBERS:
            raise CptError(f"{document}: unknown number {place[2]!r}; {nearest(place[2], NUMBERS)}")
        return f"{place[1]}{NUMBERS[place[2]]()}{place[4]}"

    place = PLACE if document.suffix == ".md" else LINES
    return place.sub(replaced, document.read_text(encoding="utf-8"))


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
    largest, where = measured.largest_difference(folder.name, read(folder.name, folder / "runs.parquet"))
    print(f"{folder} and {KEPT.name}/{folder.name}.parquet: largest difference {largest:.2f} points ({where})")
    return largest


def main(words: list[str] | None = None) -> int:
    """Write, check or compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", type=Path, action="append", default=[], metavar="FOLDER")
    parser.add_argument("--other-cpu", type=Path, metavar="FOLDER")
    parser.add_argument("--against", type=Path, metavar="FOLDER")
    given = parser.parse_args(words)
    try:
        if given.against:
            return int(compare(given.against) > TOLERANCE)
        for folder in given.keep:
            keep(folder)
        if given.other_cpu:
            shutil.copy(given.other_cpu / "runs.parquet", KEPT / f"{measured.OTHER_CPU}.parquet")
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
