"""Headings and notes that tables, figures and the page share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cpt.files.paths import Ratio, ratio_text
from cpt.results.cells import TASKS, judged_by

MISSING = "–"
AVERAGE = "Avg"
SIGNIFICANCE_LEVEL = 0.05
"""Corrected p below which a difference is marked."""


def p_text(p: float) -> str:
    """A p value with three decimals; a small one is not called zero."""
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def exhibit_label(name: str) -> str:
    """Return an exhibit's name for people: ``table2`` is ``Table 2``, ``all_classes`` is ``All classes``."""
    match = re.fullmatch(r"([a-z]+)(\d+[a-z]?)", name)
    return f"{match[1].capitalize()} {match[2]}" if match else name.replace("_", " ").capitalize()


def natural_order(name: str) -> tuple[str, int, str]:
    """Return a key that sorts ``table2`` before ``table2b``, and that before ``table10``."""
    match = re.fullmatch(r"(\D*)(\d*)(.*)", name)
    assert match is not None
    return match[1], int(match[2] or 0), match[3]


def caption_begins(name: str, exhibit: Mapping[str, Any]) -> str:
    """Return what a figure's caption begins with: ``Figure 6. Its title.``"""
    return f"{exhibit_label(name)}. {sentence(exhibit['title'])}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 seed``, ``2 seeds``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ratio_title(ratio: Ratio) -> str:
    """Return a ratio for headings: ``τ = 0.06``."""
    return f"τ = {ratio_text(ratio)}"


def ratios_title(ratios: Iterable[Ratio]) -> str:
    """Return some ratios for captions: ``τ = 1, 0.06``."""
    return f"τ = {', '.join(map(ratio_text, ratios))}"


def task_title(task: str) -> str:
    """Return a task for column headings, with the metric where it is not the accuracy."""
    return TASKS[task] + (" H" if judged_by(task) == "H" else "")


def sentence(text: str) -> str:
    """Return a text of one line that ends in a full stop."""
    text = " ".join(text.split())
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
