"""Rows of tables and curves of figures, as grid.json holds them: labels, notes, families and controls."""

from __future__ import annotations

from typing import Any

from cpt.experiment.config import Variant
from cpt.experiment.exhibits import CONTROL, RECONSTRUCTION
from cpt.files.paths import ratio_text
from cpt.methods.base import registry
from cpt.methods.base.families import LONG_TAIL


def row(name: str, variant: Variant) -> dict[str, Any]:
    """Return what a variant is called in an exhibit, and what marks it."""
    method, ratio = registry.get(variant.method), variant.imbalance_ratio
    control = variant.control or method.control
    notes = [
        variant.note,
        None if ratio is None else f"trained at τ = {ratio_text(ratio)}",
        RECONSTRUCTION if method.reconstruction else None,
        CONTROL if control else None,
    ]
    family = "long_tail" if variant.set.keys() & LONG_TAIL else method.family
    found: dict[str, Any] = {
        "id": name,
        "label": variant.label or method.title,
        "note": ", ".join(note for note in notes if note) or None,
        "family": "controls" if control else family,
    }
    found |= {} if ratio is None else {"imbalance_ratio": ratio}
    return found | ({"control": True} if control else {})
