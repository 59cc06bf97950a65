"""Families of methods, by which tables can group their rows."""

from __future__ import annotations

from cpt.methods.base.hyperparameters import NEEDS, PLAIN

FAMILIES = {
    "frozen": "Frozen CLIP",
    "prompts": "Prompts",
    "adapters": "Adapters",
    "low_rank": "Low-rank changes",
    "probes": "Linear probes",
    "post_hoc": "Post-hoc corrections",
    "long_tail": "Losses and priors for the long tail",
    "controls": "Controls",
}
"""Family -> heading, in the order of the headings. ``long_tail`` are variants of methods of the other families."""

LONG_TAIL = {*PLAIN, *NEEDS}
"""Settings that make a variant one of the family ``long_tail``."""
