"""How measures are shown: title, unit, better direction, meaning.

They are computed and named elsewhere: those of predictions by ``cpt.metrics.predictions``, those of text and image
features by ``cpt.metrics.geometry``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Measure(NamedTuple):
    """One measure of a finished run on its own test images; as it is written here, of base-to-new.

    Attributes:
        title: column title.
        subset: ``base`` or ``new`` classes, or ``base+new`` for measures of both.
        metric: its name in metrics.parquet.
        better: which direction is better; None if neither is.
        unit: ``percent`` or ``1``.
        meanings: sentences for the notes below a table; ``{groups}`` stands for the sizes of the groups.
        in_clusters: whether it needs clusters of the trained classes, for every method.
    """

    title: str
    subset: Literal["base", "new", "base+new", "all"]
    metric: str
    better: Literal["higher", "lower"] | None
    unit: Literal["percent", "1"] = "percent"
    meanings: tuple[str, ...] = ()
    in_clusters: bool = False

    @property
    def where(self) -> tuple[str, str]:
        """Subset and metric in the metrics files."""
        return self.subset, self.metric

    def of(self, task: str) -> Measure:
        """Return the measure of a task: of all classes, where these are trained and tested."""
        if task == "base_to_new" or self.subset != "base":
            return self
        title = "accuracy" if self.title == "base" else self.title.removesuffix(" base")
        return self._replace(title=title, subset="all")


_GROUPS = "head, medium, tail: {groups} of the trained classes by their training images"
_SHOTS = "many, medium, few: classes of more than 100, of 20 to 100 and of fewer than 20 training images"
_MACRO = "macro: mean of the classes' accuracies"
_CONFUSION = (
    "tail as head, head as tail: of the images whose cluster of similar classes holds one of the other group, the "
    "share that was taken for such a class"
)
_ECE = "ECE: expected calibration error over 15 bins of equal width"
_ETF = "ETF distance: root mean square of cos + 1/(K-1) over pairs of classes' text features"

MEASURES = {
    "H": Measure("H", "base+new", "harmonic_mean", "higher"),
    "base": Measure("base", "base", "accuracy", "higher"),
    "new": Measure("new", "new", "accuracy", "higher"),
    "macro_base": Measure("macro base", "base", "macro_accuracy", "higher", meanings=(_MACRO,)),
    "macro_new": Measure("macro new", "new", "macro_accuracy", "higher", meanings=(_MACRO,)),
    "head": Measure("head", "base", "head_accuracy", "higher", meanings=(_GROUPS,)),
    "medium": Measure("medium", "base", "medium_accuracy", "higher", meanings=(_GROUPS,)),
    "tail": Measure("tail", "base", "tail_accuracy", "higher", meanings=(_GROUPS,)),
    "many_shot": Measure("many (> 100)", "base", "many_shot_accuracy", "higher", meanings=(_SHOTS,)),
    "medium_shot": Measure("medium (20–100)", "base", "medium_shot_accuracy", "higher", meanings=(_SHOTS,)),
    "few_shot": Measure("few (< 20)", "base", "few_shot_accuracy", "higher", meanings=(_SHOTS,)),
    "tail_as_head": Measure(
        "tail as head", "base", "tail_as_head", "lower", meanings=(_GROUPS, _CONFUSION), in_clusters=True
    ),
    "head_as_tail": Measure(
        "head as tail", "base", "head_as_tail", "lower", meanings=(_GROUPS, _CONFUSION), in_clusters=True
    ),
    "ece_base": Measure("ECE base", "base", "calibration_error", "lower", meanings=(_ECE,)),
    "ece_new": Measure("ECE new", "new", "calibration_error", "lower", meanings=(_ECE,)),
    "within_class_variability": Measure(
        "variability", "base", "within_class_variability", "lower", "1",
        ("variability: spread of the image features within classes over that between classes",),
    ),
    "etf_distance": Measure("ETF distance", "base", "etf_distance", "lower", "1", (_ETF,)),
    "cluster_etf_distance": Measure(
        "in clusters", "base", "cluster_etf_distance", "lower", "1",
        (_ETF, "in clusters: the same over pairs of one cluster and its number of classes"), in_clusters=True,
    ),
    "alignment": Measure(
        "alignment", "base", "alignment", "higher", "1",
        ("alignment: mean cosine of a class's text feature and the mean of its image features",),
    ),
    "collapse_degree": Measure(
        "LCD", "base", "collapse_degree", "lower", "1",
        ("LCD: mean of |cos + 1/(K-1)| over pairs (NPT's, reconstructed)",),
    ),
    "modality_mismatch": Measure(
        "MID", "base", "modality_mismatch", "lower", "1",
        ("MID: mean distance of the directions of text and images' mean (NPT's, reconstructed)",),
    ),
    "effective_rank": Measure(
        "effective rank", "base", "effective_rank", None, "1", ("effective rank: of the text features' cosine matrix",)
    ),
}  # fmt: skip
"""Measures that a table can show."""

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
