"""What the model of ``cpt plan`` says of a GPU, as text for the documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpt.costs import stated_costs
from cpt.costs.gpu_model import CARDS, Gpu
from cpt.costs.plan import Plan
from cpt.costs.stated_costs import Shape, encoded, step_seconds
from cpt.methods.base import describe
from cpt.report.terminal.plan import hours
from docs.kept import markdown

VIT_B16 = Shape(512, 224, 16, (512, 12), (768, 12))
METHODS = ("coop", "ivlp", "cpt", "promptsrc", "lamp", "dpc", "dekg_tcp")
CLASSES = (24, 100, 500, 1000)


def steps() -> str:
    """Milliseconds of a step on an H100 with published settings: launched one by one / replayed as a graph."""
    gpu = Gpu(CARDS["h100"])
    lines = ["| ms a step: eager / graph | images | " + " | ".join(f"K = {k}" for k in CLASSES) + " |"]
    lines += ["|:--|--:" + "|--:" * len(CLASSES) + "|"]
    for method in METHODS:
        hp: Any = describe.published(method, "base_to_new")
        cells = []
        for count in CLASSES:
            work = encoded(method, hp, count, hp.batch_size, VIT_B16)
            found = (step_seconds(gpu, method, work, graphs=graphs, cached=False) for graphs in (False, True))
            cells.append(" / ".join(f"{1000 * seconds:.1f}" for seconds in found))
        lines.append(f"| {method} | {hp.batch_size} | {' | '.join(cells)} |")
    return markdown(lines)


def stages(plan: Mapping[str, Any]) -> str:
    """Hours of a plan by stage."""
    keys = ("gpu_seconds", "core_seconds", "alone_seconds")
    total = {"name": "**all**", **{key: sum(stage[key] for stage in plan["stages"]) for key in keys}}
    lines = ["| hours | GPU | CPU cores | one job at a time |", "|:--|--:|--:|--:|"]
    for stage in [*plan["stages"], total]:
        lines.append(f"| {stage['name']} | {' | '.join(hours(stage[key]) for key in keys)} |")
    return markdown(lines)


def schedule(plan: Mapping[str, Any]) -> str:
    """Hours of a plan by GPUs and by runs that share one."""
    lines = ["| GPUs | runs at a time on each | CPU cores a GPU | hours |", "|--:|--:|--:|--:|"]
    for row in plan["schedule"]:
        cores = row["runs"] * plan["memory"]["threads"]
        lines.append(f"| {row['cards']} | {row['runs']} | {cores} | {hours(row['seconds'])} |")
    return markdown(lines)


def hours_of(plan: Mapping[str, Any], cards: int, runs: int) -> str:
    """Hours of a plan on so many GPUs with so many runs at a time on each."""
    found = next(row for row in plan["schedule"] if (row["cards"], row["runs"]) == (cards, runs))
    return f"{found['seconds'] / 3600:.1f}"


def large(plan: Plan, least: int) -> str:
    """Share of the GPU's time in training that steps with at least so many classes take."""
    costs = stated_costs.stated(plan.grid, plan.classes, "auto")
    busy = {"all": 0.0, "large": 0.0}
    for run in plan.grid.runs.values():
        count = plan.classes[run.id]
        seconds = (plan.steps(run) or 0) * (costs.busy(run, count) or 0)
        busy["all"] += seconds
        busy["large"] += seconds if count >= least else 0
    return f"{100 * busy['large'] / busy['all']:.0f} %"
