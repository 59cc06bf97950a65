"""NPT: neural-collapse prompt tuning, global simplex ETF on MaPLe (Zhu et al., KDD 2024, arXiv 2306.15955).

A reconstruction: neither equations nor code are public. What is known are the names and aims of the two regularizers,
that they are added to MaPLe, and the two diagnostics that they should lower: the distance of the text features from a
simplex ETF ("language-modality collapse") and the mismatch of a class's images and text ("multi-modality isomorphism").
Each loss here is the squared form of its diagnostic.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from cpt.methods.base.hyperparameters import field
from cpt.methods.base.losses import rows, simplex_distance
from cpt.methods.base.method import Batch, TrainingSet
from cpt.methods.maple import MaPLe, MaPLeHyperparameters

PILOT = (
    "ours: not published; highest of 12 pairs for the tiny CLIP on validation images, within noise (config/pilot.yaml)"
)


class NPTHyperparameters(MaPLeHyperparameters):
    """MaPLe's hyperparameters and the weights of the two regularizers."""

    collapse_weight: float = field(0.1, "weight w1 of the language-modality collapse", PILOT, ge=0)
    isomorphism_weight: float = field(1.0, "weight w2 of the multi-modality isomorphism", PILOT, ge=0)


class NPT(MaPLe):
    """MaPLe with one simplex ETF over all classes, and images pulled towards the text of their class."""

    name = "npt"
    title = "NPT"
    summary = "MaPLe with a global simplex ETF of the text features and image-text alignment"
    source = "Zhu et al., KDD 2024 (arXiv 2306.15955): abstract and figure captions; no code"
    reconstruction = True
    hyperparameters: ClassVar = NPTHyperparameters

    def weights(self) -> dict[str, float]:
        """Weights w1 and w2."""
        return {"collapse": self.hp.collapse_weight, "isomorphism": self.hp.isomorphism_weight}

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Cross-entropy, mean squared distance of all cosines from -1/(K-1), mean squared image-text distance."""
        text = self.text_features(training_set.classes)
        return {
            "cross_entropy": self.cross_entropy(self.logits(image, text), batch, training_set),
            "collapse": simplex_distance(text),
            "isomorphism": (image - rows(text, batch.labels)).square().sum(dim=1).mean(),
        }
