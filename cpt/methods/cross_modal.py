"""CrossModal: a linear probe that also trains on the class texts (Lin et al., CVPR 2023), as the code of CLAP has it.

ZS-LP, where about half of the examples of a batch are text features, each an example of its class. For every example
of a batch a coin decides whether a text, of a class drawn with equal probabilities, takes its place. The published code
draws as many texts as there are images once, with replacement, and batches of the two kinds together. It takes the
texts of single templates, here a class has the mean over its templates. (With more than one template the published code
gives its texts wrong labels.) A class that was not trained is scored by its text feature.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cpt.clip.device import upload
from cpt.methods.base.class_rows import CLAP_CODE, ProbeHyperparameters
from cpt.methods.base.hyperparameters import field
from cpt.methods.base.losses import rows
from cpt.methods.base.method import Batch, TrainingSet
from cpt.methods.zs_lp import ZSLP


class CrossModalHyperparameters(ProbeHyperparameters):
    """Those of the linear probes and the share of texts."""

    text_share: float = field(0.5, "share of texts among the examples; 0 is ZS-LP", CLAP_CODE, ge=0, le=1)


class CrossModal(ZSLP):
    """Cross-entropy of frozen image features and of class texts as further examples."""

    name = "cross_modal"
    title = "CrossModal"
    summary = "linear probe that starts as the class texts and has them as further examples"
    source = f"Lin et al., CVPR 2023; {CLAP_CODE}"
    hyperparameters: ClassVar = CrossModalHyperparameters

    def draw(self, batch: Batch, training_set: TrainingSet) -> Batch:
        """The batch with, for each of its images, the class whose text takes its place, or -1 for none."""
        random, classes = batch.random, len(training_set.classes)
        texts = [
            random.randrange(classes) if random.random() < self.hp.text_share else -1 for _ in range(len(batch.labels))
        ]
        return replace(batch, drawn=upload(np.array(texts), self.clip.device))

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Cross-entropy over the images and texts (B, D)."""
        assert batch.drawn is not None
        texts = rows(training_set.classes.frozen_unit, batch.drawn)
        is_text = batch.drawn >= 0
        examples = torch.where(is_text.unsqueeze(1), texts, image)
        mixed = replace(batch, labels=torch.where(is_text, batch.drawn, batch.labels))
        return super().losses(examples, mixed, training_set)
