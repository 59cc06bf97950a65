"""A choice made on validation images: the default reading of CPT's equations.

The rule is in docs/switches.md; it was written before its result.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from cpt.report.words import SIGNIFICANCE_LEVEL
from docs.kept import (
    Difference,
    by_dataset,
    compared,
    difference_table,
    differences,
    holm,
    kept,
    label,
)

PRINTED = "printed"


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
