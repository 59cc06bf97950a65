"""The loss that KgCoOp and TCP share: guidance of the text features by the frozen ones."""

from __future__ import annotations

from torch import Tensor

from cpt.methods.base.losses import cosine_distance
from cpt.methods.base.method import Batch, Method, TrainingSet


class Guided(Method):
    """Cross-entropy, and the text features' distance in direction to the frozen ones, times ``hp.guidance_weight``."""

    def weights(self) -> dict[str, float]:
        """Weight of the guidance."""
        return {"guidance": self.hp.guidance_weight}

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Cross-entropy, and mean cosine distance to the frozen features."""
        text = self.text_features(training_set.classes)
        return {
            "cross_entropy": self.cross_entropy(self.logits(image, text), batch, training_set),
            "guidance": cosine_distance(text, training_set.classes.frozen_unit),
        }
