"""DeKg on TCP: TCP with text features that are independent of the frozen ones.

The CPT paper's DeKg rows agree with this variant.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from cpt.methods.base.hyperparameters import field
from cpt.methods.base.losses import cosine_distance, dependence
from cpt.methods.base.method import Batch, TrainingSet
from cpt.methods.tcp import TCP, ClassPromptHyperparameters

CONFIG = "repo cnunlp/DeKg, configs/trainers/DeKg_TCP"
CODE = "repo cnunlp/DeKg, trainers/DeKg_TCP.py"
SCRIPTS = "repo cnunlp/DeKg, scripts (ten datasets)"


class DeKgTCPHyperparameters(ClassPromptHyperparameters):
    """TCP's hyperparameters and the weight of the independence; defaults of the published configuration."""

    epochs: int = field(100, "passes over the training set", CONFIG, ge=0)
    guidance_weight: float = field(8.0, "weight w1 of the cosine distance to the frozen features", SCRIPTS, ge=0)
    independence_weight: float = field(6.0, "weight w2 of the dependence (HSIC) on the frozen features", SCRIPTS, ge=0)


class DeKgTCP(TCP):
    """TCP with DeKg's second loss term."""

    name = "dekg_tcp"
    title = "DeKg"
    summary = "class prompts from frozen text features (TCP), guided by them, with an independence term (HSIC)"
    source = f"{CODE}; TCP: Yao et al., CVPR 2024"
    hyperparameters: ClassVar = DeKgTCPHyperparameters

    def weights(self) -> dict[str, float]:
        """Weights w1 and w2."""
        return super().weights() | {"dependence": self.hp.independence_weight}

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """As DeKg, but the dependence uses text features before normalization, as in the published code."""
        raw = self.raw_text_features(training_set.classes)
        text, frozen = F.normalize(raw, dim=-1), training_set.classes.frozen_unit
        logits = self.logits(image, text)
        return {
            "cross_entropy": self.cross_entropy(logits, batch, training_set),
            "guidance": cosine_distance(text, frozen),
            "dependence": dependence(raw, frozen),
        }
