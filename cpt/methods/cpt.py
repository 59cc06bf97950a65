"""CPT: cluster-aware neural collapse prompt tuning (arXiv 2605.11939).

IVLP's prompts with three more losses on the text features g of all K trained classes:

    L = L_CLIP + 0.25 L_TETF + 0.15 L_CC + 0.10 L_RS          (Eq. 12)

Where the paper is open to several readings, each is a switch; docs/switches.md gives the reasons for the defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import ValidationInfo, field_validator
from torch import Tensor
from torch.nn import functional as F

from cpt import limits
from cpt.features.clusters import ALGORITHMS
from cpt.methods.base.hyperparameters import PLAIN, PLKR, field
from cpt.methods.base.losses import anchor, class_consistency, cluster_separation, in_batch_contrast
from cpt.methods.base.method import Batch, TrainingSet
from cpt.methods.ivlp import IVLP, IVLPHyperparameters

PAPER = "CPT, section 4.1"
if TYPE_CHECKING:
    Clustering = str
else:
    Clustering = Literal[tuple(ALGORITHMS)]


class CPTHyperparameters(IVLPHyperparameters):
    """IVLP's hyperparameters, the loss weights, the clustering, and the readings of the equations."""

    tetf_weight: float = field(0.25, "weight of the cluster separation L_TETF", PAPER, ge=0)
    cc_weight: float = field(0.15, "weight of the class consistency L_CC", PAPER, ge=0)
    rs_weight: float = field(0.10, "weight of the anchor L_RS (rotation stability)", PAPER, ge=0)

    clustering: Clustering = field(
        "spherical", "algorithm on the frozen text features", "CPT, Table 5, row 1 (equals the main results)"
    )
    classes_per_cluster: int = field(16, "M = max(1, round(K / this))", "CPT, supplement, Figure 5", ge=1)
    clusters: int | None = field(None, "a fixed number of clusters M instead", "ours", ge=1)
    cluster_seed: int | None = field(
        None, "a fixed seed of the clustering; default: the run's", "ours", ge=0, le=limits.SEED
    )
    templates: str = field("ensemble", "template set of the frozen text features", PLKR)

    contrast: Literal["cross_entropy", "in_batch"] = field(
        "cross_entropy", "L_CLIP: over all class texts, or Eq. 1 as printed", "ours: Eq. 1 is ill-posed at batch 4"
    )

    @field_validator("contrast")
    @classmethod
    def _in_batch_has_no_logits(cls, contrast: str, info: ValidationInfo) -> str:
        for name in ("prior", "loss", "reweight"):
            chosen = info.data.get(name, PLAIN[name])
            if contrast == "in_batch" and chosen != PLAIN[name]:
                raise ValueError(f"has no class logits for {name}: {chosen}; set {name}: {PLAIN[name]}")
        return contrast

    tetf_reading: Literal["sum", "pairs", "entries"] = field(
        "sum", "L_TETF: sum as printed, mean over off-diagonal pairs, or mean over all entries", "CPT, Eq. 9"
    )
    tetf_by_size: bool = field(False, "weight clusters by size instead of 1/M", "CPT, Eq. 9")
    cc_reading: Literal["present", "importance"] = field(
        "present", "L_CC on a batch: mean over present classes, or importance-weighted", "ours"
    )
    cc_detach_text: bool = field(False, "L_CC: no gradient into the text features", "CPT, Eq. 10")
    rs_features: Literal["raw", "unit"] = field("raw", "L_RS on raw or unit-norm text features", "CPT, Eq. 11")


class CPT(IVLP):
    """IVLP plus cluster separation, class consistency and the anchor to frozen features."""

    name = "cpt"
    title = "CPT"
    summary = "IVLP with cluster-wise simplex ETF, class consistency and anchor losses"
    source = "arXiv 2605.11939"
    hyperparameters = CPTHyperparameters
    needs_clusters = True
    hp: CPTHyperparameters

    def weights(self) -> dict[str, float]:
        """Loss weights of Eq. 12."""
        hp = self.hp
        return {"separation": hp.tetf_weight, "consistency": hp.cc_weight, "anchor": hp.rs_weight}

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Components of Eq. 12; those of weight 0 are not computed."""
        hp = self.hp
        raw = self.raw_text_features(training_set.classes)
        text = F.normalize(raw, dim=-1)
        if hp.contrast == "in_batch":
            components = {"in_batch": in_batch_contrast(image, text, batch.labels, self.clip.logit_scale)}
        else:
            components = {"cross_entropy": self.cross_entropy(self.logits(image, text), batch, training_set)}
        if hp.tetf_weight:
            assert training_set.clusters is not None
            components["separation"] = cluster_separation(
                text, training_set.clusters, hp.tetf_reading, by_size=hp.tetf_by_size
            )
        if hp.cc_weight:
            components["consistency"] = class_consistency(
                image, text, batch.labels, hp.cc_reading, counts=training_set.counts, detach_text=hp.cc_detach_text
            )
        if hp.rs_weight:
            classes = training_set.classes
            ours, frozen = (raw, classes.frozen) if hp.rs_features == "raw" else (text, classes.frozen_unit)
            components["anchor"] = anchor(ours, frozen)
        return components
