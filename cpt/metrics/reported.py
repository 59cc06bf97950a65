"""How measures are shown: title, unit, better direction; a new one is computed and named elsewhere, then listed here.

Computed: of predictions in ``cpt.metrics.predictions``, named by ``measure`` of ``cpt.evaluation.score``; of text and
image features in ``cpt.metrics.geometry``, named by ``collapse_measures`` there.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Measure(NamedTuple):
    """One measure of a finished base-to-new run on its own test images.

    Attributes:
        title: column title.
        subset: ``base`` or ``new`` classes, or ``base+new`` for measures of both.
        metric: its name in metrics.parquet.
        better: which direction is better; None if neither is.
        unit: ``percent`` or ``1``.
    """

    title: str
    subset: Literal["base", "new", "base+new"]
    metric: str
    better: Literal["higher", "lower"] | None
    unit: Literal["percent", "1"] = "percent"

    @property
    def where(self) -> tuple[str, str]:
        """Subset and metric in the metrics files."""
        return self.subset, self.metric


MEASURES = {
    "H": Measure("H", "base+new", "harmonic_mean", "higher"),
    "base": Measure("base", "base", "accuracy", "higher"),
    "new": Measure("new", "new", "accuracy", "higher"),
    "macro_base": Measure("macro base", "base", "macro_accuracy", "higher"),
    "macro_new": Measure("macro new", "new", "macro_accuracy", "higher"),
    "head": Measure("head", "base", "head_accuracy", "higher"),
    "medium": Measure("medium", "base", "medium_accuracy", "higher"),
    "tail": Measure("tail", "base", "tail_accuracy", "higher"),
    "tail_as_head": Measure("tail as head", "base", "tail_as_head", "lower"),
    "head_as_tail": Measure("head as tail", "base", "head_as_tail", "lower"),
    "ece_base": Measure("ECE base", "base", "calibration_error", "lower"),
    "ece_new": Measure("ECE new", "new", "calibration_error", "lower"),
    "within_class_variability": Measure("variability", "base", "within_class_variability", "lower", "1"),
    "etf_distance": Measure("ETF distance", "base", "etf_distance", "lower", "1"),
    "cluster_etf_distance": Measure("in clusters", "base", "cluster_etf_distance", "lower", "1"),
    "alignment": Measure("alignment", "base", "alignment", "higher", "1"),
    "collapse_degree": Measure("LCD", "base", "collapse_degree", "lower", "1"),
    "modality_mismatch": Measure("MID", "base", "modality_mismatch", "lower", "1"),
    "effective_rank": Measure("effective rank", "base", "effective_rank", None, "1"),
}
"""Measures that a table can show."""

_GROUPS = "head, medium, tail: {groups} of the trained classes by their training images"
_MACRO = "macro: mean of the classes' accuracies"
_CONFUSION = (
    "tail as head, head as tail: of the images whose cluster of similar classes holds one of the other group, the "
    "share that was taken for such a class"
)
_ECE = "ECE: expected calibration error over 15 bins of equal width"
_ETF = "ETF distance: root mean square of cos + 1/(K-1) over pairs of classes' text features"

MEANINGS = {
    "macro_base": (_MACRO,),
    "macro_new": (_MACRO,),
    "head": (_GROUPS,),
    "medium": (_GROUPS,),
    "tail": (_GROUPS,),
    "tail_as_head": (_GROUPS, _CONFUSION),
    "head_as_tail": (_GROUPS, _CONFUSION),
    "ece_base": (_ECE,),
    "ece_new": (_ECE,),
    "within_class_variability": ("variability: spread of the image features within classes over that between classes",),
    "etf_distance": (_ETF,),
    "cluster_etf_distance": (_ETF, "in clusters: the same over pairs of one cluster and its number of classes"),
    "alignment": ("alignment: mean cosine of a class's text feature and the mean of its image features",),
    "collapse_degree": ("LCD: mean of |cos + 1/(K-1)| over pairs (NPT's, reconstructed)",),
    "modality_mismatch": ("MID: mean distance of the directions of text and images' mean (NPT's, reconstructed)",),
    "effective_rank": ("effective rank: of the text features' cosine matrix",),
}
"""Explanations of measures for the notes below a table; ``{groups}`` stands for the sizes of the groups."""

IN_CLUSTERS = ("tail_as_head", "head_as_tail", "cluster_etf_distance")
"""Measures that need clusters of the trained classes, for every method."""

CURVES = {
    "within_class_variability": "within-class variability",
    "etf_distance": "ETF distance",
    "cluster_etf_distance": "ETF distance in clusters",
    "alignment": "text-image alignment",
    "collapse_degree": "LCD",
    "modality_mismatch": "MID",
    "effective_rank": "effective rank",
    "mean_cosine": "mean cosine",
    "drift": "drift from the frozen texts",
}
"""Measures in histories that a figure can draw over epochs, with their titles."""
