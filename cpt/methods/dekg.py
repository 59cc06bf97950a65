"""DeKg (KgCoOp variant): CoOp with text features close in direction to the frozen ones, yet independent of them."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from cpt.methods.base.hyperparameters import field
from cpt.methods.base.losses import cosine_distance, dependence
from cpt.methods.base.method import Batch, TrainingSet
from cpt.methods.kgcoop import KgCoOp, KgCoOpHyperparameters

SCRIPTS = "repo cnunlp/DeKg, scripts (ten datasets)"
CONFIG = "repo cnunlp/DeKg, configs/trainers/DeKg"


class DeKgHyperparameters(KgCoOpHyperparameters):
    """KgCoOp's hyperparameters and the weight of the independence."""

    epochs: int = field(100, "passes over the training set", CONFIG, ge=0)
    batch_size: int = field(128, "images per step", CONFIG, ge=1)
    templates: str = field("texture", "template set of the frozen text features", "repo cnunlp/DeKg, trainers/DeKg.py")
    guidance_weight: float = field(8.0, "weight w1 of the cosine distance to the frozen features", SCRIPTS, ge=0)
    independence_weight: float = field(6.0, "weight w2 of the dependence (HSIC) on the frozen features", SCRIPTS, ge=0)


class DeKg(KgCoOp):
    """Cross-entropy, guidance by the frozen text features, and independence from them."""

    name = "dekg"
    title = "DeKg without TCP"
    summary = "CoOp guided by frozen text features, with an independence term (HSIC)"
    source = "repo cnunlp/DeKg, trainers/DeKg.py"
    hyperparameters: ClassVar = DeKgHyperparameters

    def weights(self) -> dict[str, float]:
        """Weights w1 and w2."""
        return super().weights() | {"dependence": self.hp.independence_weight}

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Cross-entropy, mean cosine distance to the frozen features, and dependence on them."""
        text = self.text_features(training_set.classes)
        frozen = training_set.classes.frozen_unit
        logits = self.logits(image, text)
        return {
            "cross_entropy": self.cross_entropy(logits, batch, training_set),
            "guidance": cosine_distance(text, frozen),
            "dependence": dependence(text, frozen),
        }
