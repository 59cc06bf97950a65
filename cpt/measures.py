"""What is told of a run beyond its accuracy: names, titles, units, and which way is better.

Equations: ``cpt.metrics.accuracy`` and ``cpt.geometry``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Measure(NamedTuple):
    """One measure of a finished run on its own test images.

    Attributes:
        title: heading of a column.
        half: ``trained`` classes (the base half, or all), ``new`` classes, or ``both`` halves.
        metric: its name in metrics.parquet.
        better: which way is better; None where neither is.
        unit: ``percent`` or ``1``.
    """

    title: str
    half: Literal["trained", "new", "both"]
    metric: str
    better: Literal["higher", "lower"] | None
    unit: Literal["percent", "1"] = "percent"


MEASURES = {
    "H": Measure("H", "both", "harmonic_mean", "higher"),
    "base": Measure("base", "trained", "accuracy", "higher"),
    "new": Measure("new", "new", "accuracy", "higher"),
    "macro_base": Measure("macro base", "trained", "macro_accuracy", "higher"),
    "macro_new": Measure("macro new", "new", "macro_accuracy", "higher"),
    "head": Measure("head", "trained", "head_accuracy", "higher"),
    "medium": Measure("medium", "trained", "medium_accuracy", "higher"),
    "tail": Measure("tail", "trained", "tail_accuracy", "higher"),
    "tail_as_head": Measure("tail as head", "trained", "tail_as_head", "lower"),
    "head_as_tail": Measure("head as tail", "trained", "head_as_tail", "lower"),
    "ece_base": Measure("ECE base", "trained", "calibration_error", "lower"),
    "ece_new": Measure("ECE new", "new", "calibration_error", "lower"),
    "within_class_variability": Measure("variability", "trained", "within_class_variability", "lower", "1"),
    "etf_distance": Measure("ETF distance", "trained", "etf_distance", "lower", "1"),
    "cluster_etf_distance": Measure("in clusters", "trained", "cluster_etf_distance", "lower", "1"),
    "alignment": Measure("alignment", "trained", "alignment", "higher", "1"),
    "collapse_degree": Measure("LCD", "trained", "collapse_degree", "lower", "1"),
    "modality_mismatch": Measure("MID", "trained", "modality_mismatch", "lower", "1"),
    "effective_rank": Measure("effective rank", "trained", "effective_rank", None, "1"),
}
"""Measures that a table can show."""

MEANINGS = {
    "macro_base": "macro: mean of the classes' accuracies",
    "tail_as_head": (
        "tail as head, head as tail: of the images whose cluster holds a class of the other group, the share that "
        "was taken for one of its classes"
    ),
    "ece_base": "ECE: expected calibration error over 15 bins of equal width",
    "within_class_variability": ("variability: spread of the image features within classes over that between classes"),
    "etf_distance": "ETF distance: root mean square of cos + 1/(K-1) over pairs of classes' text features",
    "cluster_etf_distance": "in clusters: the same over pairs of one cluster and its number of classes",
    "alignment": "alignment: mean cosine of a class's text feature and the mean of its image features",
    "collapse_degree": "LCD: mean of |cos + 1/(K-1)| over pairs (NPT's, reconstructed)",
    "modality_mismatch": "MID: mean distance of the directions of text and images' mean (NPT's, reconstructed)",
    "effective_rank": "effective rank: of the text features' cosine matrix",
}
"""What a reader of a table must know of a measure."""

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
"""Measures of histories that a figure can draw over epochs, and their titles."""
