"""Choices made on validation images: the default reading of CPT's equations, learning rates and epochs of all methods.

The rules are in docs/switches.md and docs/embedded.md; they were written before their results.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from cpt.experiment import config
from cpt.methods.base import registry
from cpt.report.words import SIGNIFICANCE_LEVEL
from docs.kept import (
    CONFIGS,
    ROOT,
    Difference,
    by_dataset,
    compared,
    difference_table,
    differences,
    holm,
    kept,
    label,
    markdown,
)

PRINTED = "printed"
RATIO = 0.06
"""Imbalance ratio of config/effort.yaml."""


def readings() -> dict[str, list[float]]:
    """Candidate reading -> its H minus that of the printed one, per dataset: mean over both ratios and all seeds."""
    exhibit, found = kept("pilot").exhibit("table2"), {}
    for row in (row["id"] for row in exhibit["rows"]):
        if row not in (PRINTED, "plain"):
            by_ratio = [
                differences(*(by_dataset("pilot", "table2", ratio, name) for name in (row, PRINTED)))
                for ratio in exhibit["ratios"]
            ]
            found[row] = [statistics.fmean(values) for values in zip(*by_ratio, strict=True)]
    return found


def tested() -> dict[str, tuple[Difference, float]]:
    """Candidate reading -> its difference from the printed one, with the corrected p."""
    found = {row: compared(values) for row, values in readings().items()}
    return dict(zip(found, zip(found.values(), holm(list(found.values())), strict=True), strict=True))


def chosen_reading() -> str:
    """The default row by the rule: the printed one, unless another is significantly better after correction."""
    better = {row: d.mean for row, (d, corrected) in tested().items() if d.mean > 0 and corrected < SIGNIFICANCE_LEVEL}
    return max(better, key=lambda row: better[row], default=PRINTED)


def reading(row: str) -> Callable[[], str]:
    """A candidate's difference from the printed reading, as text."""

    def text() -> str:
        difference, corrected = tested()[row]
        interval = f"95 % interval {difference.low:+.2f} to {difference.high:+.2f}"
        return f"{difference.mean:+.2f} points of H ({interval}, corrected p {corrected:.3f})"

    return text


def pilot_differences() -> str:
    """The rule's test: every candidate against the printed reading."""
    found: dict[tuple[str, ...], Difference] = {
        (label("pilot", "table2", row),): difference for row, (difference, _) in tested().items()
    }
    return difference_table(found, ("candidate minus as printed",))


def pilot_verdict() -> str:
    """The default by the rule."""
    return label("pilot", "table2", chosen_reading())


class Setting(NamedTuple):
    """A point of the effort grid: epochs, learning rate, and H on validation images, one number per dataset."""

    epochs: int
    learning_rate: float
    values: list[float]

    @property
    def mean(self) -> float:
        """Mean H over the datasets."""
        return statistics.fmean(self.values)


@cache
def effort() -> dict[str, list[Setting]]:
    """Method -> the settings that were tried."""
    variants = config.load([ROOT / CONFIGS["effort"]]).variants
    found: dict[str, list[Setting]] = {}
    for row in kept("effort").exhibit("table2")["rows"]:
        variant = variants[row["id"]]
        seeds = by_dataset("effort", "table2", RATIO, row["id"]).values()
        means = [statistics.fmean(values.values()) for values in seeds]
        setting = Setting(variant.set["epochs"], variant.set["learning_rate"], means)
        found.setdefault(variant.method, []).append(setting)
    return found


def best_setting(settings: Sequence[Setting]) -> Setting:
    """The setting with the highest mean H."""
    return max(settings, key=lambda setting: setting.mean)


def chosen_setting(settings: Sequence[Setting]) -> Setting:
    """The one with the fewest epochs among those within one paired standard error of the best."""
    best = best_setting(settings)

    def close(setting: Setting) -> bool:
        behind = [b - s for b, s in zip(best.values, setting.values, strict=True)]
        return statistics.fmean(behind) <= statistics.stdev(behind) / len(behind) ** 0.5

    return min(filter(close, settings), key=lambda setting: (setting.epochs, -setting.mean))


def effort_edges() -> str:
    """How many choices lie at an edge of what was tried."""
    rates = epochs = both = 0
    for settings in effort().values():
        chosen = chosen_setting(settings)
        tried = [s.learning_rate for s in settings]
        rate = chosen.learning_rate in (min(tried), max(tried))
        epoch = chosen.epochs in (min(s.epochs for s in settings), max(s.epochs for s in settings))
        rates, epochs, both = rates + rate, epochs + epoch, both + (rate and epoch)
    many = len(effort())
    return (
        f"Of {many} choices, {epochs} are at an edge in epochs (where two numbers were tried, either is one), "
        f"{rates} in the learning rate, {both} in both."
    )


def effort_outcome() -> str:
    """Settings tried and chosen for every method."""
    lines = [
        "| method | settings | best: epochs, learning rate | H | chosen: epochs, learning rate | H |",
        "|:--|--:|:--|--:|:--|--:|",
    ]
    for method, settings in effort().items():
        pair = [
            f"{s.epochs}, {s.learning_rate:g} | {s.mean:.2f}"
            for s in (best_setting(settings), chosen_setting(settings))
        ]
        kind = registry.get(method)
        mark = " _(reconstruction)_" if kind.reconstruction else ""
        lines.append(f"| {kind.title}{mark} (`{method}`) | {len(settings)} | {' | '.join(pair)} |")
    runs = sum(len(setting.values) for settings in effort().values() for setting in settings)
    return markdown([*lines, "", f"{runs} runs. H on validation images, mean over the datasets."])
